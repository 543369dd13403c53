// What /proc and ps show of a warm child: its own arguments, environment and name.
#pragma once

#include <span>

namespace warmfork {

/// Addresses of the image that PR_SET_MM_MAP has to be told again; they are the same in every
/// child.
struct ImageAddresses {
    unsigned long start_code, end_code, start_data, end_data, start_brk, start_stack;
    bool known = false;
};

/// Reads them from a process's stat file. `known` stays false where that cannot be done.
[[nodiscard]] ImageAddresses read_image_addresses(const char* stat_file = "/proc/self/stat");

/// Shows `arguments` and `environment` (NUL-terminated strings in memory that stays) as
/// /proc/self/cmdline and environ, and the last part of `executable`, or where that is null of the
/// first argument, as comm. A kernel without CHECKPOINT_RESTORE leaves cmdline and environ as they
/// were, which is no failure. Allocates nothing.
void show_title(const ImageAddresses& image, const char* executable,
                std::span<const char> arguments, std::span<const char> environment);

}  // namespace warmfork
