#include "child/vfork.hpp"

#include <sched.h>
#include <sys/mman.h>

#include <cstddef>

#if defined(__SANITIZE_ADDRESS__)
#include <sanitizer/asan_interface.h>
#endif

namespace warmfork {
namespace {

constexpr std::size_t kStackSize = 256u << 10;
constexpr std::size_t kGuardSize = 64u << 10;  // no page is larger

}  // namespace

ChildStack::ChildStack() {
    void* memory = ::mmap(nullptr, kStackSize, PROT_NONE,
                          MAP_PRIVATE | MAP_ANONYMOUS | MAP_NORESERVE | MAP_STACK, -1, 0);
    if (memory == MAP_FAILED) return;
    if (::mprotect(static_cast<std::byte*>(memory) + kGuardSize, kStackSize - kGuardSize,
                   PROT_READ | PROT_WRITE) == 0) {
        memory_ = memory;
        return;
    }
    const int error = errno;
    ::munmap(memory, kStackSize);
    errno = error;
}

ChildStack::~ChildStack() {
    if (!memory_) return;
#if defined(__SANITIZE_ADDRESS__)
    // The child has left its frames there without returning from them.
    __asan_unpoison_memory_region(memory_, kStackSize);
#endif
    ::munmap(memory_, kStackSize);
}

void* ChildStack::top() const {
    return memory_ ? static_cast<std::byte*>(memory_) + kStackSize : nullptr;
}

int vfork_on(const ChildStack& stack, int (*run)(void*), void* argument, int exit_signal,
             Descriptor& ret_pidfd) {
    if (!stack.top()) return -ENOMEM;
    const int flags = CLONE_VM | CLONE_VFORK | exit_signal;
    int pidfd = -1;
    int pid = ::clone(run, stack.top(), flags | CLONE_PIDFD, argument, &pidfd);
    if (pid < 0 && (errno == EMFILE || errno == ENFILE))
        pid = ::clone(run, stack.top(), flags, argument);
    if (pid < 0) return -errno;
    ret_pidfd = Descriptor(pidfd);
    return pid;
}

}  // namespace warmfork
