#include "template/clone.hpp"

#include <linux/futex.h>
#include <linux/sched.h>
#include <signal.h>
#include <sys/prctl.h>
#include <sys/syscall.h>

#include <cstdint>

namespace warmfork {
namespace {

constexpr std::uint64_t kFlags = CLONE_PIDFD | CLONE_CHILD_SETTID | CLONE_CHILD_CLEARTID;

/// Calls clone, which has one place for what CLONE_PIDFD and CLONE_PARENT_SETTID write.
long clone_by_registers(std::uint64_t flags, int exit_signal, void* parent_side, int* thread_id) {
    flags |= static_cast<std::uint64_t>(exit_signal);
#if defined(__aarch64__)
    return ::syscall(SYS_clone, flags, nullptr, parent_side, nullptr, thread_id);
#elif defined(__x86_64__)
    return ::syscall(SYS_clone, flags, nullptr, parent_side, thread_id, nullptr);
#else
#error "the argument order of clone is not known for this architecture"
#endif
}

/// Does without clone3. The kernel shows the pid: were that left to this process, which may be
/// killed at any instruction, nobody would know of the child. So the pidfd is opened after it, by a
/// number that could be another process's only if the child had been killed and reaped, and all
/// other numbers been used, since the last instruction. It stays -1 where the child has been
/// reaped, and where the kernel has no room for one more file: such a child is killed, as nobody
/// could watch over it.
long clone_and_open(std::uint64_t flags, int exit_signal, std::atomic<std::int32_t>* shown_pid,
                    int* pidfd, int* thread_id) {
    // A number for it is kept free, so that without one there is no child either.
    Descriptor room = open_pidfd(::getpid());
    if (!room) return -1;
    const long pid = clone_by_registers((flags & ~std::uint64_t{CLONE_PIDFD}) | CLONE_PARENT_SETTID,
                                        exit_signal, shown_pid, thread_id);
    if (pid <= 0) return pid;
    room.reset();
    *pidfd = open_pidfd(static_cast<int>(pid)).release();
    if (*pidfd < 0 && errno != ESRCH) ::kill(static_cast<pid_t>(pid), SIGKILL);
    return pid;
}

long clone_system_call(std::uint64_t flags, int exit_signal, std::atomic<std::int32_t>* shown_pid,
                       int* pidfd, int* thread_id) {
    clone_args arguments{};
    arguments.flags = flags | (shown_pid ? CLONE_PARENT_SETTID : 0);
    arguments.parent_tid = reinterpret_cast<std::uintptr_t>(shown_pid);
    arguments.pidfd = reinterpret_cast<std::uintptr_t>(pidfd);
    arguments.child_tid = reinterpret_cast<std::uintptr_t>(thread_id);
    arguments.exit_signal = static_cast<std::uint64_t>(exit_signal);
    const long pid = ::syscall(SYS_clone3, &arguments, sizeof arguments);
    // Filters forbid clone3, as they cannot look at its flags.
    if (pid >= 0 || (errno != ENOSYS && errno != EPERM)) return pid;
    return shown_pid ? clone_and_open(flags, exit_signal, shown_pid, pidfd, thread_id)
                     : clone_by_registers(flags, exit_signal, pidfd, thread_id);
}

}  // namespace

int CloneContext::prepare() {
    if (::prctl(PR_GET_TID_ADDRESS, &thread_id_) < 0) return errno;
    if (::syscall(SYS_get_robust_list, 0, &robust_list_, &robust_list_size_) < 0) return errno;
    if (!robust_list_) return 0;
    // An empty list points at itself, and then so does its copy in the child: nothing to reset
    // there.
    const auto* list = static_cast<const robust_list_head*>(robust_list_);
    return list->list.next == &list->list && !list->list_op_pending ? 0 : EBUSY;
}

int CloneContext::clone_sibling(std::atomic<std::int32_t>& shown_pid, Descriptor& ret_pidfd) const {
    // With CLONE_PARENT the child gets the template's exit signal, SIGCHLD.
    return clone(CLONE_PARENT, 0, &shown_pid, ret_pidfd);
}

int CloneContext::clone_child(int exit_signal, Descriptor& ret_pidfd) const {
    return clone(0, exit_signal, nullptr, ret_pidfd);
}

int CloneContext::clone(std::uint64_t relation, int exit_signal,
                        std::atomic<std::int32_t>* shown_pid, Descriptor& ret_pidfd) const {
    int pidfd = -1;
    const long pid =
        clone_system_call(kFlags | relation, exit_signal, shown_pid, &pidfd, thread_id_);
    if (pid < 0) return -errno;
    if (pid == 0) {
        if (robust_list_) ::syscall(SYS_set_robust_list, robust_list_, robust_list_size_);
        return 0;
    }
    ret_pidfd = Descriptor(pidfd);
    return static_cast<int>(pid);
}

}  // namespace warmfork
