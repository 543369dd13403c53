// An application that reaps children which it does not know, and whose own children then have their
// pids: nothing of the shim may wait for these, or end them.
#include <signal.h>
#include <sys/wait.h>
#include <unistd.h>

#include <functional>

#include "support/catch.hpp"
#include "support/processes.hpp"

using warmfork::Descriptor;
using warmfork::Error;

namespace {

/// Kills a child and waits for it behind the shim's back; the pid is then a child's of the test's
/// own. It must be alive at the end, and not waited for.
class Stranger {
  public:
    /// `pid` < 0 afterwards: this process may not choose the pid of a child.
    explicit Stranger(pid_t of) {
        ::kill(of, SIGKILL);
        REQUIRE(::waitpid(of, nullptr, 0) == of);
        pid = fork_idler(of);
        if (pid > 0) REQUIRE(pid == of);
    }
    Stranger(const Stranger&) = delete;
    ~Stranger() {
        if (pid <= 0) return;
        CHECK(is_running(pid));
        ::kill(pid, SIGKILL);
        CHECK(::waitpid(pid, nullptr, 0) == pid);
    }
    pid_t pid;
};

int errno_of(const std::function<void()>& call) {
    try {
        call();
    } catch (const Error& error) {
        return error.error_number();
    }
    return 0;
}

}  // namespace

TEST_CASE("A child of the application's own that has a dead spare's pid is left alone") {
    warmfork::Template table = probe_template(1);
    table.wait_parked(1);
    const Stranger stranger(spares().at(0));
    CHECK(output_of(table, {"exit", "0"}).empty());
    table.wait_parked(1);
    { warmfork::Template closed = std::move(table); }
    CHECK((stranger.pid < 0 || is_running(stranger.pid)));
}

TEST_CASE("A child of the application's own that has a dead template's pid is left alone") {
    warmfork::Template table = probe_template(1);
    table.wait_parked(1);
    const Stranger stranger(warmfork_template_pid(table.handle()));
    CHECK(output_of(table, {"exit", "0"}).empty());
}

TEST_CASE("A handle whose child was reaped by others neither signals nor waits for its successor") {
    warmfork::Template table = probe_template(1);
    for (warmfork_backend backend : {WARMFORK_BACKEND_WARM, WARMFORK_BACKEND_COLD}) {
        ProbeRequest request({"wait"});
        request.descriptors.push_back({-1, 1});
        request.request.backend = backend;
        warmfork::Process child = table.spawn(request.get());
        const Stranger stranger(child.pid());
        CHECK(errno_of([&] { child.signal(SIGKILL); }) == ESRCH);
        CHECK(errno_of([&] { child.wait(); }) == ECHILD);
    }
}

TEST_CASE("What a killed template leaves to a keeper does not end a successor of its children") {
    Pipe output;
    const pid_t owner = ::fork();
    if (owner == 0) {
        ::alarm(120);
        auto* table = new warmfork::Template(probe_template(1));
        ProbeRequest request({"wait"});
        request.descriptors.push_back({-1, 1});
        const pid_t known = table->spawn(request.get()).pid();
        const pid_t child = table->spawn(request.get()).pid();
        ::kill(known, SIGKILL);
        ::waitpid(known, nullptr, 0);
        const pid_t pids[] = {fork_idler(known), child};
        const pid_t pid = warmfork_template_pid(table->handle());
        ::kill(pid, SIGKILL);
        siginfo_t info;
        ::waitid(P_PID, static_cast<id_t>(pid), &info, WEXITED | WNOWAIT);
        delete table;
        if (::write(output.write_end.get(), pids, sizeof pids) != sizeof pids) ::_exit(1);
        while (true) ::pause();
    }
    output.write_end.reset();
    pid_t pids[2] = {-1, -1};
    REQUIRE(::read(output.read_end.get(), pids, sizeof pids) == sizeof pids);
    const Descriptor stranger(pids[0] > 0 ? warmfork::open_pidfd(pids[0]) : Descriptor());
    const Descriptor child = warmfork::open_pidfd(pids[1]);
    ::kill(owner, SIGKILL);
    ::waitpid(owner, nullptr, 0);
    CHECK(has_ended(child));
    if (!stranger) return;
    CHECK(is_running(pids[0]));
    warmfork::signal_pidfd(stranger.get(), SIGKILL);
}
