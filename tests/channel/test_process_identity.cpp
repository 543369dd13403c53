#include "channel/process_identity.hpp"

#include <fcntl.h>
#include <pthread.h>
#include <signal.h>
#include <sys/resource.h>
#include <sys/wait.h>

#include <climits>
#include <vector>

#include "channel/with_process.hpp"
#include "support/catch.hpp"
#include "support/processes.hpp"

using namespace warmfork;

namespace {

/// A child that does nothing, killed and reaped at the end where that has not happened.
struct Idler {
    explicit Idler(pid_t wanted = 0) : pid(fork_idler(wanted)) {}
    ~Idler() { end(); }
    void end() {
        if (pid <= 0) return;
        ::kill(pid, SIGKILL);
        ::waitpid(pid, nullptr, 0);
        pid = 0;
    }
    pid_t pid;
};

/// No descriptor is free while it lives, but those that are let go of.
struct NoDescriptorFree {
    NoDescriptorFree() {
        REQUIRE(::getrlimit(RLIMIT_NOFILE, &before) == 0);
        const rlimit few{32, before.rlim_max};
        REQUIRE(::setrlimit(RLIMIT_NOFILE, &few) == 0);
        while (Descriptor one{::open("/dev/null", O_RDONLY | O_CLOEXEC)})
            taken.push_back(std::move(one));
    }
    ~NoDescriptorFree() { ::setrlimit(RLIMIT_NOFILE, &before); }
    rlimit before{};
    std::vector<Descriptor> taken;
};

/// Runs it in a thread whose stack is the smallest that there is.
void run_on_small_stack(const std::function<void()>& body) {
    pthread_attr_t attributes;
    REQUIRE(::pthread_attr_init(&attributes) == 0);
    REQUIRE(::pthread_attr_setstacksize(&attributes, 2 * PTHREAD_STACK_MIN) == 0);
    const auto run = [](void* argument) -> void* {
        (*static_cast<const std::function<void()>*>(argument))();
        return nullptr;
    };
    pthread_t thread;
    REQUIRE(::pthread_create(&thread, &attributes, run,
                             const_cast<void*>(static_cast<const void*>(&body))) == 0);
    ::pthread_join(thread, nullptr);
    ::pthread_attr_destroy(&attributes);
}

}  // namespace

TEST_CASE("A process is opened while it has not been reaped") {
    for (const bool by_time : {false, true}) {
        Idler child;
        REQUIRE(child.pid > 0);
        const Descriptor pidfd = open_pidfd(child.pid);
        const ProcessIdentity identity{child.pid, by_time ? mark_by_time() : mark_of(pidfd.get())};
        CHECK(is_running(identity));
        REQUIRE(::kill(child.pid, SIGKILL) == 0);
        CHECK(has_ended(pidfd));
        CHECK(open_process(identity));
        CHECK_FALSE(is_running(identity));
        child.end();
        CHECK_FALSE(open_process(identity));
        CHECK(errno == ESRCH);
    }
}

TEST_CASE("A process that has the pid of another one later is not taken for it") {
    for (const bool by_time : {false, true}) {
        Idler child;
        REQUIRE(child.pid > 0);
        const Descriptor pidfd = open_pidfd(child.pid);
        const ProcessIdentity identity{child.pid, by_time ? mark_by_time() : mark_of(pidfd.get())};
        const std::uint64_t two_ticks = 20'000'000;
        while (mark_by_time() < identity.mark + two_ticks && by_time) {
        }
        child.end();
        const Idler stranger(identity.pid);
        if (stranger.pid < 0) return;  // not allowed to choose a pid here
        REQUIRE(stranger.pid == identity.pid);
        CHECK_FALSE(open_process(identity));
        CHECK(errno == ESRCH);
    }
}

TEST_CASE("An unknown process is not opened") {
    CHECK_FALSE(open_process({}));
    CHECK_FALSE(open_process({::getpid(), 0}));
    CHECK(open_process(identify_self()));
}

TEST_CASE("A process that cannot be looked at for want of numbers is not said to be gone") {
    const Idler child;
    REQUIRE(child.pid > 0);
    const ProcessIdentity identity{child.pid, mark_by_time()};
    std::vector<int> errors;
    {
        NoDescriptorFree none;
        // With none for the pidfd; with one, and none for what is behind it.
        for (int free = 0; free < 2; ++free) {
            errors.push_back(open_process(identity) ? 0 : errno);
            none.taken.pop_back();
        }
        CHECK(open_process(identity));
    }
    CHECK(errors == std::vector<int>{EMFILE, EMFILE});
}

TEST_CASE(
    "A process is made use of in threads that have little stack, with descriptors and without") {
    const Idler child;
    REQUIRE(child.pid > 0);
    const ProcessIdentity identity{child.pid, mark_by_time()};
    int with = -1, without = -1;
    const auto answer = [](int pidfd) { return has_ended(pidfd) ? 1 : 2; };
    run_on_small_stack([&] { with = with_process(identity, answer); });
    run_on_small_stack([&] {
        const NoDescriptorFree none;
        without = with_process(identity, answer);
    });
    CHECK(with == 2);
    CHECK(without == 2);
}

TEST_CASE("A child is reaped by its pidfd, with the status that waitpid gives") {
    const auto status_of = [](int signal) {
        const pid_t pid = ::fork();
        if (pid == 0) {
            if (signal) ::raise(signal);
            ::_exit(7);
        }
        const Descriptor pidfd = open_pidfd(pid);
        int status = -1;
        rusage usage{};
        CHECK(reap(pidfd.get(), 0, &status, &usage) == 0);
        CHECK(reap(pidfd.get(), 0, &status, nullptr) == ECHILD);
        return status;
    };
    CHECK(status_of(0) == 7 << 8);
    CHECK(status_of(SIGKILL) == SIGKILL);
    const Idler child;
    const Descriptor pidfd = open_pidfd(child.pid);
    CHECK(reap(pidfd.get(), WNOHANG, nullptr, nullptr) == EAGAIN);
}

TEST_CASE("Fields of /proc are told, and which process a pidfd is of") {
    CHECK(pid_of(open_pidfd(::getpid()).get()) == ::getpid());
    CHECK(pid_of(0) == 0);
    CHECK(process_statistic(::getpid(), 4) == static_cast<std::uint64_t>(::getppid()));
    CHECK(process_statistic(::getpid(), kStackStartField) != 0);
    CHECK(process_statistic(0x7fffffff, kStartTimeField) == 0);
}
