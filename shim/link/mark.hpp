// How warmfork-exec, by whatever path and of whatever version, is told from all other programs: its
// file has a note near its beginning.
#pragma once

#include <cstddef>

namespace warmfork::link {

/// This is never changed: of two versions each has to know the other, or their links would call
/// each other in turn.
inline constexpr char kMark[] = "warmfork-exec stands here for the real program";

/// The note is looked for this far from the beginning of the file.
inline constexpr std::size_t kMarkWithin = 4096;

}  // namespace warmfork::link
