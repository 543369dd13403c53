// Finds out what an image was made from.
#pragma once

#include <cstdint>
#include <set>
#include <string>
#include <string_view>
#include <vector>

#include "protocol/preload_interface.hpp"
#include "template/image_facts.hpp"

namespace warmfork {

/// Returns when this process was started, in nanoseconds of the real-time clock, at most 10 ms too
/// early.
[[nodiscard]] std::int64_t process_start_time();

/// Returns the name by which an entry of ImageFacts::shadowable that depends on the directory can
/// be allowed: "directory:MODULE" or "directory:./NAME"; empty where it does not depend on it.
[[nodiscard]] std::string dependence_of(std::string_view entry);
/// Returns these names for all entries.
[[nodiscard]] std::vector<std::string> dependences_of(const std::set<std::string>& shadowable);

/// Adds what the preload library has recorded, the files that are mapped, and what libc and the
/// loader have read by themselves.
void add_recorded_reads(const PreloadInterface& preload, ImageFacts& facts);

}  // namespace warmfork
