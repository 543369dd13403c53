#include "template/terminal.hpp"

#include <fcntl.h>
#include <sched.h>
#include <signal.h>
#include <sys/ioctl.h>
#include <sys/prctl.h>
#include <unistd.h>

#include <array>
#include <cerrno>
#include <cstddef>

#include "template/clone.hpp"

namespace warmfork {
namespace {

/// Has this process end with its parent, also where that has ended already.
void end_with(pid_t parent) {
    if (::prctl(PR_SET_PDEATHSIG, SIGKILL) < 0 || ::getppid() != parent) ::_exit(0);
}

struct Membership {
    pid_t parent, group;
    int ready;
};

/// Is the member of the group whose parent is in the session, but not in the group.
int be_member(void* argument) {
    const auto* membership = static_cast<const Membership*>(argument);
    end_with(membership->parent);
    // Where that fails Ctrl-Z does nothing; the child runs all the same.
    static_cast<void>(::setpgid(0, membership->group));
    static_cast<void>(!::write(membership->ready, "", 1));
    ::close(membership->ready);
    for (;;) ::pause();
}

/// Looks after the child's group. All signals are blocked: only SIGKILL and the end of the child
/// end this.
[[noreturn]] void look_after_group(pid_t child, int ready) {
    end_with(child);
    ::prctl(PR_SET_NAME, "warmfork-job");
    if (close_all_but({&ready, 1}) || ::setpgid(0, 0) < 0) ::_exit(0);
    // The two share their memory, but not the stack.
    alignas(16) static std::array<std::byte, 16384> stack;
    static Membership membership;
    membership = {::getpid(), child, ready};
    ::clone(be_member, stack.data() + stack.size(), CLONE_VM | SIGCHLD, &membership);
    ::close(ready);
    for (;;) ::pause();
}

}  // namespace

bool take_terminal(ChildFailure& ret_failure) {
    if (::ioctl(STDIN_FILENO, TIOCSCTTY, 0) < 0) {
        ret_failure = {Stage::session, errno, STDIN_FILENO};
        return false;
    }
    CloneContext clone;
    int ready[2];
    if (::pipe2(ready, O_CLOEXEC) < 0) {
        ret_failure = {Stage::session, errno, 0};
        return false;
    }
    const pid_t self = ::getpid();
    Descriptor pidfd;
    int pid = -clone.prepare();
    if (pid == 0) pid = clone.clone_child(0, pidfd);
    if (pid == 0) look_after_group(self, ready[1]);
    ::close(ready[1]);
    if (pid < 0) {
        ret_failure = {Stage::session, -pid, 0};
        return false;
    }
    // Until both are in their groups, or have gone: a Ctrl-Z may come at once.
    char byte;
    while (::read(ready[0], &byte, 1) < 0 && errno == EINTR) {
    }
    ::close(ready[0]);
    return true;
}

}  // namespace warmfork
