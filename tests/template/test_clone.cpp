// The system call that makes a child, interrupted by the death of whoever makes it.
#include "template/clone.hpp"

#include <signal.h>
#include <sys/mman.h>
#include <sys/ptrace.h>
#include <sys/syscall.h>
#include <sys/wait.h>
#include <unistd.h>

#include "support/catch.hpp"
#include "support/processes.hpp"

using namespace warmfork;

namespace {

constexpr int kNotPossible = 77;

/// Makes a sibling without clone3, traced by its parent.
[[noreturn]] void clone_while_traced(std::atomic<std::int32_t>& shown_pid) {
    ::ptrace(PTRACE_TRACEME, 0, nullptr, nullptr);
    ::raise(SIGSTOP);
    CloneContext context;
    Descriptor pidfd;
    if (!refuse_system_call(SYS_clone3) || context.prepare()) ::_exit(kNotPossible);
    ::_exit(context.clone_sibling(shown_pid, pidfd) < 0);
}

/// Lets the traced process run to where the kernel has made a child, and the process has done
/// nothing since. Returns the child's pid, or -1 where the process has ended before.
pid_t run_to_clone(pid_t traced, int& ret_status) {
    while (::ptrace(PTRACE_SYSCALL, traced, nullptr, nullptr) == 0 &&
           ::waitpid(traced, &ret_status, 0) == traced && WIFSTOPPED(ret_status)) {
        __ptrace_syscall_info call{};
        ::ptrace(PTRACE_GET_SYSCALL_INFO, traced, sizeof call, &call);
        static std::uint64_t entered = 0;
        if (call.op == PTRACE_SYSCALL_INFO_ENTRY) entered = call.entry.nr;
        if (call.op == PTRACE_SYSCALL_INFO_EXIT && entered == SYS_clone && call.exit.rval > 0)
            return static_cast<pid_t>(call.exit.rval);
    }
    return -1;
}

}  // namespace

TEST_CASE("Without clone3 as well the pid is shown when whoever forks is killed right then") {
    void* const page = ::mmap(nullptr, sizeof(std::atomic<std::int32_t>), PROT_READ | PROT_WRITE,
                              MAP_SHARED | MAP_ANONYMOUS, -1, 0);
    REQUIRE(page != MAP_FAILED);
    auto& shown_pid = *new (page) std::atomic<std::int32_t>(0);
    const pid_t traced = ::fork();
    if (traced == 0) clone_while_traced(shown_pid);
    int status = 0;
    REQUIRE(::waitpid(traced, &status, 0) == traced);
    pid_t child = -1;
    if (WIFSTOPPED(status)) {
        ::ptrace(PTRACE_SETOPTIONS, traced, nullptr, PTRACE_O_TRACESYSGOOD | PTRACE_O_EXITKILL);
        child = run_to_clone(traced, status);
    }
    if (child > 0) {
        ::kill(traced, SIGKILL);
        CHECK(::waitpid(traced, &status, 0) == traced);
        CHECK(WIFSIGNALED(status));
        CHECK(shown_pid == child);
        CHECK(::waitpid(child, &status, 0) == child);
    } else {
        // Neither a filter nor tracing is to be had everywhere.
        CHECK(WEXITSTATUS(status) == kNotPossible);
    }
    ::munmap(page, sizeof(std::atomic<std::int32_t>));
}
