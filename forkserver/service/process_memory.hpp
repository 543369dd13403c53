// What processes take of the machine's memory.
#pragma once

#include <sys/types.h>

#include <cstdint>
#include <vector>

namespace warmfork::service {

/// Amounts in kB, as the kernel's smaps_rollup says; 0: not known.
struct ProcessMemory {
    std::uint64_t resident_kb = 0;
    std::uint64_t proportional_kb = 0;  ///< shared pages by the number of those who share them
};

/// Returns the memory of all of them together. Those that have ended count nothing. Takes
/// milliseconds for a large process: the kernel walks its page tables.
[[nodiscard]] ProcessMemory memory_of(const std::vector<pid_t>& processes);

}  // namespace warmfork::service
