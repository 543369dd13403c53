// What both sides have to judge alike of files.
#pragma once

#include <time.h>

#include <cstdint>
#include <string_view>

namespace warmfork {

[[nodiscard]] inline std::int64_t nanoseconds(const timespec& time) {
    return std::int64_t{time.tv_sec} * 1'000'000'000 + time.tv_nsec;
}

/// Would Python import a file of this name, for the module that is named before the first dot?
[[nodiscard]] inline bool has_module_suffix(std::string_view name) {
    return name.ends_with(".py") || name.ends_with(".pyc") || name.ends_with(".so");
}

}  // namespace warmfork
