// The system call that makes a child, and what glibc's fork would have put right after it.
#pragma once

#include <atomic>
#include <cstddef>
#include <cstdint>

#include "channel/descriptor.hpp"

namespace warmfork {

/// Where glibc keeps what the kernel must be told of again in a child.
class CloneContext {
  public:
    /// Asks the kernel. Returns 0, or errno where PR_GET_TID_ADDRESS is missing (a kernel without
    /// CHECKPOINT_RESTORE), or EBUSY where the calling thread holds a robust mutex.
    [[nodiscard]] int prepare();

    /// Makes a child of the template's *parent*: CLONE_PARENT. The caller has blocked all signals
    /// and is the only thread. Returns the pid, with `ret_pidfd` set; 0 in the child; -errno on
    /// failure (EAGAIN: RLIMIT_NPROC or pids; EINVAL: the template is PID 1 of its namespace;
    /// ENOMEM). The kernel writes the pid into `shown_pid` before the child runs, so it stands
    /// there whenever this process is killed. Where there is no clone3 `ret_pidfd` is empty if the
    /// child has been reaped already.
    [[nodiscard]] int clone_sibling(std::atomic<std::int32_t>& shown_pid,
                                    Descriptor& ret_pidfd) const;

    /// Makes a child of this process; otherwise it does the same. `exit_signal` is SIGCHLD, or 0
    /// for a child that no wait sees without __WALL and that ends without a word to its parent.
    [[nodiscard]] int clone_child(int exit_signal, Descriptor& ret_pidfd) const;

  private:
    [[nodiscard]] int clone(std::uint64_t relation, int exit_signal,
                            std::atomic<std::int32_t>* shown_pid, Descriptor& ret_pidfd) const;

    int* thread_id_ = nullptr;
    void* robust_list_ = nullptr;
    std::size_t robust_list_size_ = 0;
};

}  // namespace warmfork
