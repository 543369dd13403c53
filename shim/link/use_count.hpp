// How often a linked command was warm and cold: one small file for each, beside the service's
// socket, which lives as long as the runtime directory does. Nothing here allocates or takes a
// lock.
#pragma once

#include <cstddef>
#include <cstdint>

namespace warmfork::link {

/// What a file of counts holds, in the machine's own order of bytes.
struct UseCounts {
    std::uint64_t warm = 0, cold = 0;
};
static_assert(sizeof(UseCounts) == 16);

/// Counts one use of a command, by its name. Where there is no directory of a service, or no room,
/// nothing is counted.
void count_use(const char* command, bool is_warm);

/// Returns false if nothing has been counted.
[[nodiscard]] bool read_use_counts(const char* command, UseCounts& ret_counts);

}  // namespace warmfork::link
