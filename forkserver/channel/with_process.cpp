#include "channel/with_process.hpp"

#include <sched.h>
#include <signal.h>
#include <sys/mman.h>

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

/// Leaves `asked` as it is where no thread can be made. The thread's stack is a mapping of its own:
/// that of the caller, which may be any thread of an application, need not have room for another.
[[gnu::noinline]] void use_in_another_thread(Use& asked) {
    constexpr std::size_t stack_size = 65536;
    void* const stack = ::mmap(nullptr, stack_size, PROT_READ | PROT_WRITE,
                               MAP_PRIVATE | MAP_ANONYMOUS | MAP_STACK, -1, 0);
    if (stack == MAP_FAILED) return;
    // A thread, as children are waited for by the process whose they are. It has this thread's
    // errno and all else that is each thread's own, which therefore stands still meanwhile, and
    // takes no signal.
    constexpr int flags = CLONE_VM | CLONE_VFORK | CLONE_FS | CLONE_SIGHAND | CLONE_THREAD |
                          CLONE_SYSVSEM;  // not CLONE_FILES
    sigset_t all, before;
    ::sigfillset(&all);
    ::pthread_sigmask(SIG_SETMASK, &all, &before);
    ::clone(use_in_own_table, static_cast<char*>(stack) + stack_size, flags, &asked);
    ::pthread_sigmask(SIG_SETMASK, &before, nullptr);
    ::munmap(stack, stack_size);
}

}  // namespace

int with_process(const ProcessIdentity& process, const std::function<int(int pidfd)>& use) {
    Use asked{process, use};
    use_opened(&asked);
    if (asked.result == EMFILE) use_in_another_thread(asked);
    return asked.result;
}

}  // namespace warmfork
