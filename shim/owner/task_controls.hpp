// Numbers and a structure of the kernel's interface to settings of a task, for what reads them and
// what takes them back: newer than the headers of Debian 12 (Linux 6.1), or in some that do not go
// together with libc's, or with C++.
#pragma once

#include <cerrno>
#include <cstdint>

namespace warmfork {

inline constexpr int kSetIoFlusher = 57;        // PR_SET_IO_FLUSHER
inline constexpr int kGetIoFlusher = 58;        // PR_GET_IO_FLUSHER
inline constexpr int kCoreScheduling = 62;      // PR_SCHED_CORE
inline constexpr int kGetWriteExecuteBan = 66;  // PR_GET_MDWE, Linux 6.3
inline constexpr int kSetMemoryMerging = 67;    // PR_SET_MEMORY_MERGE, Linux 6.4
inline constexpr int kGetMemoryMerging = 68;    // PR_GET_MEMORY_MERGE, Linux 6.4
inline constexpr int kFlushOfDataCache = 2;     // PR_SPEC_L1D_FLUSH
inline constexpr int kIoPriorityOfProcess = 1;  // IOPRIO_WHO_PROCESS

/// struct sched_attr of linux/sched/types.h.
struct SchedulingAttributes {
    std::uint32_t size, policy;
    std::uint64_t flags;
    std::int32_t nice;
    std::uint32_t priority;
    std::uint64_t runtime, deadline, period;
    std::uint32_t least_utilization, most_utilization;
};
static_assert(sizeof(SchedulingAttributes) == 56);

/// Does this error say that a setting is not in this kernel, or not on this machine?
[[nodiscard]] inline bool is_absent_setting(int error_number) {
    return error_number == EINVAL || error_number == ENODEV || error_number == ENXIO;
}

}  // namespace warmfork
