// What programs do with processes and descriptors that they did not open.
#include <fcntl.h>
#include <sched.h>
#include <signal.h>
#include <sys/eventfd.h>
#include <sys/socket.h>
#include <sys/syscall.h>
#include <sys/wait.h>
#include <unistd.h>

#include <algorithm>
#include <fstream>

#include "support/catch.hpp"
#include "support/processes.hpp"

using warmfork::Descriptor;
using warmfork::Error;

TEST_CASE("A handle that is used in a forked copy of its owner answers ECHILD") {
    warmfork::Template table = probe_template(1);
    ProbeRequest request({"wait"});
    request.descriptors.push_back({-1, 1});
    warmfork::Process child = table.spawn(request.get());
    const pid_t copy = ::fork();
    if (copy == 0) {
        int right = 0;
        try {
            table.spawn(request.get());
        } catch (const Error& error) {
            right += error.error_number() == ECHILD;
        }
        try {
            child.wait();
        } catch (const Error& error) {
            right += error.error_number() == ECHILD;
        }
        right += warmfork_template_pid(table.handle()) == 0;
        {
            warmfork::Template dropped = std::move(table);  // closing there is harmless here
        }
        ::_exit(right == 3 ? 0 : 1);
    }
    int status;
    ::waitpid(copy, &status, 0);
    CHECK(status == 0);
    output_of(table, {"exit", "5"}, &status);
    CHECK(WEXITSTATUS(status) == 5);
    child.signal(SIGKILL);
    CHECK(child.wait() == SIGKILL);
}

TEST_CASE("A forked copy of the owner opens a template of its own") {
    warmfork::Template table = probe_template(1);
    table.wait_parked(1);
    const pid_t copy = ::fork();
    if (copy == 0) {
        int status = 0;
        {
            warmfork::Template own = probe_template(1);
            output_of(own, {"exit", "6"}, &status);
        }
        ::_exit(WEXITSTATUS(status));
    }
    int status;
    ::waitpid(copy, &status, 0);
    CHECK(WEXITSTATUS(status) == 6);
}

TEST_CASE(
    "An owner that closes descriptors it did not open gets a new template, not a wrong record") {
    warmfork::Template table = probe_template(2, {}, WARMFORK_BACKEND_WARM);
    table.wait_parked(2);
    const std::vector<int> before = children_of(::getpid());
    std::vector<int> sockets;
    for (int number = 3; number < 2000; ++number) {
        int type;
        socklen_t size = sizeof type;
        if (::getsockopt(number, SOL_SOCKET, SO_TYPE, &type, &size) == 0) {
            // The application's own socket takes the number of a mailbox.
            int pair[2];
            REQUIRE(::socketpair(AF_UNIX, SOCK_SEQPACKET | SOCK_CLOEXEC, 0, pair) == 0);
            ::dup3(pair[0], number, O_CLOEXEC);
            ::close(pair[0]);
            sockets.push_back(number);
            sockets.push_back(pair[1]);
        }
    }
    int status = 0;
    output_of(table, {"exit", "7"}, &status);
    CHECK(WEXITSTATUS(status) == 7);
    for (std::size_t i = 1; i < sockets.size(); i += 2) {
        char byte;
        CHECK(::recv(sockets[i], &byte, 1, MSG_DONTWAIT) <= 0);  // nothing came to the application
    }
    for (int socket : sockets) ::close(socket);
}

TEST_CASE("Doorbells of the application's own at the shim's numbers are not rung, read or closed") {
    const auto is_bell = [](int number) {
        char target[64]{};
        const std::string link = "/proc/self/fd/" + std::to_string(number);
        return ::readlink(link.c_str(), target, sizeof target - 1) > 0 &&
               std::string(target) == "anon_inode:[eventfd]";
    };
    std::vector<int> bells;
    {
        warmfork::Template table = probe_template(2, {}, WARMFORK_BACKEND_WARM);
        table.wait_parked(2);
        for (int number = 3; number < 1024; ++number) {
            if (!is_bell(number)) continue;
            const Descriptor own(::eventfd(7, EFD_CLOEXEC | EFD_NONBLOCK));
            ::dup3(own.get(), number, O_CLOEXEC);
            bells.push_back(number);
        }
        REQUIRE_FALSE(bells.empty());
        for (int turn = 0; turn < 3; ++turn) {
            int status = 0;
            output_of(table, {"exit", "7"}, &status);
            CHECK(WEXITSTATUS(status) == 7);
        }
        CHECK(table.counts().template_starts == 2);
    }
    for (int number : bells) {
        std::uint64_t count = 0;
        CHECK(::read(number, &count, sizeof count) == sizeof count);
        CHECK(count == 7);
        ::close(number);
    }
}

TEST_CASE("An owner that closes what lies low keeps its template") {
    warmfork::Template table = probe_template(2, {}, WARMFORK_BACKEND_WARM);
    table.wait_parked(2);
    for (int number = 3; number < 256; ++number) ::close(number);
    int status = 0;
    output_of(table, {"exit", "7"}, &status);
    CHECK(WEXITSTATUS(status) == 7);
    CHECK(table.counts().template_starts == 1);
}

TEST_CASE("An owner that waits for any child may take a spare's or the template's status") {
    warmfork::Template table = probe_template(1);
    table.wait_parked(1);
    for (int pid : spares()) {
        ::kill(pid, SIGKILL);
        CHECK(::waitpid(-1, nullptr, 0) == pid);
    }
    int status = 0;
    output_of(table, {"exit", "7"}, &status);
    CHECK(WEXITSTATUS(status) == 7);
    const pid_t pid = warmfork_template_pid(table.handle());
    ::kill(pid, SIGKILL);
    while (::waitpid(-1, nullptr, 0) != pid) {
    }
    output_of(table, {"exit", "7"}, &status);
    CHECK(WEXITSTATUS(status) == 7);
}

TEST_CASE(
    "A status that was taken is fetched from the kernel or reported as taken, never made up") {
    warmfork::Template table = probe_template(1);
    ProbeRequest request({"exit", "9"});
    SECTION("without a pidfd") {
        warmfork::Process child = table.spawn(request.get());
        REQUIRE(::waitpid(child.pid(), nullptr, 0) == child.pid());
        try {
            child.wait();
            FAIL("it made up a status");
        } catch (const Error& error) {
            CHECK(error.error_number() == ECHILD);
        }
    }
    SECTION("with one") {
        warmfork::Process child = table.spawn(request.get());
        child.pidfd();
        REQUIRE(::waitpid(child.pid(), nullptr, 0) == child.pid());
        try {
            const int status = child.wait();  // what is thrown in a CHECK is its failure
            CHECK(WEXITSTATUS(status) == 9);
        } catch (const Error& error) {
            CHECK(error.error_number() == ECHILD);  // a kernel before 6.15
        }
    }
}

TEST_CASE("A loop of waits for the own process group ends with the last child, template or not") {
    warmfork::Template table = probe_template(2);
    table.wait_parked(2);
    ProbeRequest request({"exit", "6"});
    std::vector<pid_t> children;
    for (warmfork_backend backend : {WARMFORK_BACKEND_WARM, WARMFORK_BACKEND_COLD}) {
        request.request.backend = backend;
        children.push_back(table.spawn(request.get()).pid());
    }
    std::vector<pid_t> reaped;
    // Against a loop that does not end: no child is left that this group's waits see.
    ::alarm(60);
    int status;
    for (pid_t pid; (pid = ::waitpid(0, &status, 0)) > 0;) {
        reaped.push_back(pid);
        CHECK(WEXITSTATUS(status) == 6);
    }
    ::alarm(0);
    CHECK(errno == ECHILD);
    std::sort(children.begin(), children.end());
    std::sort(reaped.begin(), reaped.end());
    CHECK(reaped == children);
    CHECK(output_of(table, {"exit", "0"}).empty());
}

TEST_CASE("An owner that ignores SIGCHLD is told a right status or that it is lost") {
    ::signal(SIGCHLD, SIG_IGN);
    {
        warmfork::Template table = probe_template(1, {}, WARMFORK_BACKEND_WARM);
        ProbeRequest request({"exit", "9"});
        warmfork::Process child = table.spawn(request.get());
        // The kernel reaps it. From Linux 6.15 on it tells the status to whoever had looked before.
        try {
            const int status = child.wait();
            CHECK(WEXITSTATUS(status) == 9);
        } catch (const Error& error) {
            CHECK(error.error_number() == ECHILD);
        }
    }
    ::signal(SIGCHLD, SIG_DFL);
}

TEST_CASE("SIGCHLD tells of a warm child's end") {
    static volatile sig_atomic_t told = 0;
    ::signal(SIGCHLD, [](int) { told = 1; });
    warmfork::Template table = probe_template(0);
    table.wait_parked(0);
    told = 0;
    ProbeRequest request({"exit", "1"});
    warmfork::Process child = table.spawn(request.get());
    child.wait();
    CHECK(told == 1);
    ::signal(SIGCHLD, SIG_DFL);
}

TEST_CASE("SIGINT at the process group reaches the child and not the template") {
    // In a group of its own, so that the test's own runner is not hit.
    const pid_t owner = ::fork();
    if (owner == 0) {
        ::setpgid(0, 0);
        ::signal(SIGINT, [](int) {});
        int right = 0;
        {
            warmfork::Template table = probe_template(1);
            table.wait_parked(1);
            const pid_t first = warmfork_template_pid(table.handle());
            ProbeRequest request({"wait"});
            request.descriptors.push_back({-1, 1});
            warmfork::Process child = table.spawn(request.get());
            ::kill(0, SIGINT);
            right += child.wait() == SIGINT;
            int status = 0;
            output_of(table, {"exit", "2"}, &status);
            right += WEXITSTATUS(status) == 2;
            right += warmfork_template_pid(table.handle()) == first;
        }
        ::_exit(right == 3 ? 0 : 1);
    }
    int status;
    ::waitpid(owner, &status, 0);
    CHECK(status == 0);
}

TEST_CASE("An idle template uses no processor time") {
    warmfork::Template table = probe_template(2);
    table.wait_parked(2);
    const auto ticks = [&] {
        std::ifstream file("/proc/" + std::to_string(warmfork_template_pid(table.handle())) +
                           "/schedstat");
        unsigned long long running = 0;
        file >> running;
        return running;
    };
    const auto is_asleep = [&] {
        std::ifstream file("/proc/" + std::to_string(warmfork_template_pid(table.handle())) +
                           "/stat");
        std::string stat((std::istreambuf_iterator<char>(file)), {});
        return stat.at(stat.rfind(')') + 2) == 'S';
    };
    // It has said that it goes to sleep, which on a busy machine takes a while.
    while (!is_asleep()) ::sched_yield();
    const auto before = ticks();
    for (int i = 0; i < 50; ++i) {
        // Something else to do in the meantime: a second of it, counted in real children.
        ProbeRequest request({"exit", "0"});
        request.request.backend = WARMFORK_BACKEND_COLD;
        table.spawn(request.get()).wait();
    }
    // Nanoseconds: once in five seconds it looks at its spares.
    CHECK(ticks() - before < 1'000'000);
}

TEST_CASE("Files of /proc that the application has closed are opened again, and stay open") {
    const pid_t copy = ::fork();
    if (copy == 0) {
        int right = 0;
        {
            warmfork::Template table = probe_template(1);  // warm, or an error
            for (int round = 0; round < 3; ++round) {
                int status = 0;
                output_of(table, {"exit", "6"}, &status);
                right += WEXITSTATUS(status) == 6;
                for (int number = 3; number < 100; ++number) {
                    char target[64] = {};
                    const std::string link = "/proc/self/fd/" + std::to_string(number);
                    if (::readlink(link.c_str(), target, sizeof target - 1) > 0 &&
                        std::string_view(target).ends_with("/status"))
                        ::close(number);
                }
            }
            right += table.counts().template_starts == 1;
        }
        ::_exit(right);
    }
    int status;
    ::waitpid(copy, &status, 0);
    CHECK(WEXITSTATUS(status) == 4);
}
