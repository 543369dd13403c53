#include "channel/with_process.hpp"

#include <sched.h>
#include <signal.h>

#include <array>

namespace warmfork {
namespace {

struct Use {
    const ProcessIdentity& process;
    const std::function<int(int)>& use;
    int result = EMFILE;
};

int use_opened(void* argument) {
    Use& asked = *static_cast<Use*>(argument);
    const Descriptor pidfd = open_process(asked.process);
    asked.result = pidfd ? asked.use(pidfd.get()) : errno;
    return 0;
}

/// With descriptors of its own: room is made by closing some that this process goes on to have.
int use_in_own_table(void* argument) {
    for (const int number : {0, 1, 2}) ::close(number);
    return use_opened(argument);
}

}  // namespace

int with_process(const ProcessIdentity& process, const std::function<int(int pidfd)>& use) {
    Use asked{process, use};
    use_opened(&asked);
    if (asked.result != EMFILE) return asked.result;
    // A thread, as children are waited for by the process whose they are. It has this thread's
    // errno and all else that is each thread's own, which therefore stands still meanwhile, and
    // takes no signal.
    constexpr int flags = CLONE_VM | CLONE_VFORK | CLONE_FS | CLONE_SIGHAND | CLONE_THREAD |
                          CLONE_SYSVSEM;  // not CLONE_FILES
    alignas(16) std::array<char, 65536> stack;
    sigset_t all, before;
    ::sigfillset(&all);
    ::pthread_sigmask(SIG_SETMASK, &all, &before);
    ::clone(use_in_own_table, stack.data() + stack.size(), flags, &asked);
    ::pthread_sigmask(SIG_SETMASK, &before, nullptr);
    return asked.result;
}

}  // namespace warmfork
