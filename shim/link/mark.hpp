// How warmfork-exec is told from all other programs, by whatever path and of whatever version: by a
// note that its file has near its beginning.
#pragma once

#include <cstddef>

namespace warmfork::link {

/// Never changed: of two versions each has to know the other, or their links would take turns.
inline constexpr char kMark[] = "warmfork-exec stands here for the real program";

/// So far from the beginning of the file the note is looked for.
inline constexpr std::size_t kMarkWithin = 4096;

}  // namespace warmfork::link
