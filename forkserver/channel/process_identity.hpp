// Which process a number means that may have been given to another one since: an application that
// waits for any child reaps children that it does not know, and whoever signals or waits for one of
// them by its number alone may meet a stranger.
#pragma once

#include <sys/resource.h>
#include <sys/types.h>

#include <cstdint>

#include "channel/descriptor.hpp"

namespace warmfork {

/// A process, named without a descriptor that would have to be held all the time. It is plain data,
/// which may be copied out of shared memory.
struct ProcessIdentity {
    pid_t pid = 0;           ///< 0: none
    std::uint64_t mark = 0;  ///< the process's alone, see mark_of; 0: not known
};

/// Returns what tells a process from others that have its pid later: a time at which it was there,
/// as one that has the pid later was started later. Start times are told in ticks of 10 ms. It must
/// be called while the process has not been reaped.
[[nodiscard]] std::uint64_t mark_by_time();
/// Returns the same mark without that grain: Linux 6.9 and later number all processes, and no
/// number comes twice before a reboot. Returns `otherwise` where `pidfd` has no number. Allocates
/// nothing.
[[nodiscard]] std::uint64_t mark_of(int pidfd, std::uint64_t otherwise = mark_by_time());
/// Names the calling process. Allocates nothing, and is safe between fork and exec.
[[nodiscard]] ProcessIdentity identify_self();

/// Opens a pidfd of this very process, running or not yet reaped. Otherwise it is empty with errno
/// set: to ESRCH where the process has been reaped, or nobody can tell; to EMFILE and the like
/// where no descriptor is free.
[[nodiscard]] Descriptor open_process(const ProcessIdentity& process);

/// Returns the pid of the process behind a pidfd, as this process would call it, or 0 where it
/// cannot be told.
[[nodiscard]] pid_t pid_of(int pidfd);

/// Has the process behind a pidfd ended, reaped or not?
[[nodiscard]] bool has_ended(int pidfd);
/// Is this process there, and has not ended? What cannot be told counts as ended.
[[nodiscard]] bool is_running(const ProcessIdentity& process);

/// Reaps a child by its pidfd, also one that no wait without __WALL sees. `options` is 0 or
/// WNOHANG. Returns 0; EAGAIN while it runs; ECHILD if it has been reaped, or is nobody's child
/// here. Both results may be null; the status is as of waitpid.
[[nodiscard]] int reap(int pidfd, int options, int* ret_status, rusage* ret_usage);

/// Returns a field of /proc/PID/stat, by its number in proc(5), from the third on, or 0 where it
/// cannot be read.
[[nodiscard]] std::uint64_t process_statistic(pid_t pid, int field);
inline constexpr int kUserTimeField = 14;    ///< in clock ticks, as the next one
inline constexpr int kSystemTimeField = 15;  ///< in the kernel
inline constexpr int kStartTimeField = 22;   ///< in clock ticks since boot
inline constexpr int kStackStartField = 28;  ///< an address: another one after exec
/// Returns the third field, a letter: 'S' waits for something to happen, 'R' runs or waits for a
/// processor, 'D' waits for a disk. Returns 0 where it cannot be read.
[[nodiscard]] char process_state(pid_t pid);

}  // namespace warmfork
