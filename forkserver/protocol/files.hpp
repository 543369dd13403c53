// What both sides have to judge alike about files.
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

/// What a listing of a directory was made for, as bits: every name, or those of installed
/// distributions only.
inline constexpr std::uint32_t kListedNames = 1, kListedDistributions = 2;

/// Does a name count where a directory was listed? What interpreters write beside sources does not,
/// nor what editors and downloads leave there for a moment.
[[nodiscard]] inline bool counts_in_listing(std::string_view name) {
    constexpr std::string_view kPassing[] = {"~", ".tmp", ".swp", ".swx", ".part", ".pyc"};
    for (std::string_view end : kPassing)
        if (name.ends_with(end)) return false;
    return name != "." && name != ".." && name != "__pycache__" && !name.starts_with(".#");
}

[[nodiscard]] inline bool is_distribution(std::string_view name) {
    return name.ends_with("dist-info") || name.ends_with("egg-info") || name.ends_with(".egg") ||
           name.ends_with(".egg-link");
}

/// The names that a directory has, whatever their order: equal for equal names.
struct ListingDigest {
    std::uint64_t names = 0, distributions = 0;

    void add(std::string_view name) {
        if (!counts_in_listing(name)) return;
        std::uint64_t value = 14695981039346656037u;  // FNV-1a
        for (char c : name) value = (value ^ static_cast<unsigned char>(c)) * 1099511628211u;
        value = (value ^ value >> 31) * 0x9e3779b97f4a7c15u;  // so that sums do not collide
        value ^= value >> 29;
        names += value;
        if (is_distribution(name)) distributions += value;
    }
    [[nodiscard]] bool is_same(const ListingDigest& other, std::uint32_t listed) const {
        return (!(listed & kListedNames) || names == other.names) &&
               (!(listed & kListedDistributions) || distributions == other.distributions);
    }
};

}  // namespace warmfork
