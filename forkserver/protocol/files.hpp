// What both sides have to judge alike of files.
#pragma once

#include <time.h>

#include <cstdint>
#include <string_view>

namespace warmfork {

[[nodiscard]] inline std::int64_t nanoseconds(const timespec& time) {
    return std::int64_t{time.tv_sec} * 1'000'000'000 + time.tv_nsec;
}

/// Files are stamped with the time of the kernel's last tick (CONFIG_HZ is 100 at the least): one
/// that was changed so shortly ago may change again without showing by its stamp.
constexpr std::int64_t kTick = 10'000'000;

[[nodiscard]] inline bool may_change_unseen(std::int64_t changed) {
    timespec now;
    ::clock_gettime(CLOCK_REALTIME, &now);
    return changed >= nanoseconds(now) - kTick;
}

/// Would Python import a file of this name, for the module that is named before the first dot?
[[nodiscard]] inline bool has_module_suffix(std::string_view name) {
    return name.ends_with(".py") || name.ends_with(".pyc") || name.ends_with(".so");
}

}  // namespace warmfork
