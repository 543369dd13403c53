// Calls that fail when a test wants them to, in a process that is started with this in LD_PRELOAD.
#include <errno.h>
#include <sys/syscall.h>
#include <unistd.h>

#include <cstdlib>
#include <new>
#include <utility>

namespace {
bool new_fails = false;
}

/// The next `new` finds no memory.
extern "C" [[gnu::visibility("default")]] void fail_next_new() {
    new_fails = true;
}

void* operator new(std::size_t size) {
    if (std::exchange(new_fails, false)) throw std::bad_alloc();
    if (void* memory = std::malloc(size ? size : 1)) return memory;
    throw std::bad_alloc();
}

/// Fails while there is the file that TEST_FAILING_GETSID names.
extern "C" [[gnu::visibility("default")]] pid_t getsid(pid_t process) noexcept {
    const char* file = std::getenv("TEST_FAILING_GETSID");
    if (file && ::access(file, F_OK) == 0) {
        errno = EPERM;
        return -1;
    }
    return static_cast<pid_t>(::syscall(SYS_getsid, process));
}
