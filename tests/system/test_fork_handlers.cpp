// Libraries whose fork handlers hold locks, or do not return, and what else a template hangs in.
#include <poll.h>
#include <signal.h>
#include <sys/wait.h>

#include <functional>
#include <utility>

#include "support/catch.hpp"
#include "support/processes.hpp"

namespace {

/// Preloaded by what this process starts.
class PreloadedLibrary {
  public:
    explicit PreloadedLibrary(const char* path) { ::setenv("LD_PRELOAD", path, 1); }
    ~PreloadedLibrary() { ::unsetenv("LD_PRELOAD"); }
};

#ifndef __SANITIZE_ADDRESS__  // its malloc is another one

TEST_CASE("Nothing allocates while a fork handler holds the lock of malloc") {
    const PreloadedLibrary library(TEST_LOCKED_MALLOC_LIBRARY);
    int status = 0;
    SECTION("in forks on command and of spares") {
        for (int spares : {0, 2}) {
            warmfork::Template table = probe_template(spares, {"leave-file"});
            for (int i = 0; i < 4; ++i) {
                output_of(table, {"exit", "5"}, &status);
                CHECK(WEXITSTATUS(status) == 5);
            }
        }
    }
    SECTION("when it finds something in the way") {
        warmfork::Template table = probe_template(0, {"thread", "socket"}, WARMFORK_BACKEND_AUTO);
        warmfork::Process process = table.spawn({WARMFORK_PROBE, "exit", "0"});
        CHECK(process.wait() == 0);
        CHECK(process.reason() == WARMFORK_REASON_GATE);
    }
    SECTION("in a twin that becomes a template") {
        warmfork::Template table = probe_template(1, {}, WARMFORK_BACKEND_WARM, true);
        output_of(table, {"nest", "2"}, &status);
        CHECK(status == 0);
    }
}

#endif

/// An owner in a process of its own, to be killed, which opens a template and then does no more
/// than `then`, with the template's pid.
class IdleOwner {
  public:
    IdleOwner(
        int spares, std::vector<std::string> options,
        const std::function<void(pid_t)>& then = [](pid_t) {}) {
        Pipe output;
        pid_ = ::fork();
        if (pid_ == 0) {
            warmfork::Template table = probe_template(spares, std::move(options));
            const int number = warmfork_template_pid(table.handle());
            if (::write(output.write_end.get(), &number, sizeof number) < 0) ::_exit(1);
            then(number);
            while (true) ::pause();
        }
        output.write_end.reset();
        REQUIRE(::read(output.read_end.get(), &template_pid_, sizeof template_pid_) ==
                sizeof template_pid_);
        watched_ = warmfork::open_pidfd(template_pid_);
    }
    ~IdleOwner() { kill(); }
    void kill() {
        if (pid_ <= 0) return;
        ::kill(pid_, SIGKILL);
        ::waitpid(std::exchange(pid_, 0), nullptr, 0);
    }
    pid_t pid() const { return pid_; }
    pid_t template_pid() const { return template_pid_; }
    /// Waits so long, in milliseconds.
    bool template_has_ended(int patience) const {
        pollfd polled{watched_.get(), POLLIN, 0};
        return ::poll(&polled, 1, patience) == 1;
    }

  private:
    pid_t pid_ = 0;
    int template_pid_ = 0;
    warmfork::Descriptor watched_;
};

/// Waits until a process has this name.
bool takes_name(pid_t pid, const std::string& name) {
    for (int tries = 0; tries < 20'000 && name_of(pid) != name; ++tries) ::poll(nullptr, 0, 1);
    return name_of(pid) == name;
}

/// Waits until there is a child of this name, and returns its pid; 0: there is none.
pid_t child_that_takes_name(pid_t parent, const std::string& name) {
    for (int tries = 0; tries < 20'000; ++tries) {
        for (int child : children_of(parent))
            if (name_of(child) == name) return child;
        ::poll(nullptr, 0, 1);
    }
    return 0;
}

}  // namespace

TEST_CASE("A template that a fork handler blocks ends with its owner") {
    SECTION("at its gate") {
        IdleOwner owner(1, {"block-prepare:0"});
        REQUIRE(takes_name(owner.template_pid(), "blocked"));
        owner.kill();
        CHECK(owner.template_has_ended(60'000));
    }
    SECTION("later, when it may have children to end, after a while") {
        IdleOwner owner(1, {"block-prepare:1"});
        REQUIRE(takes_name(owner.template_pid(), "blocked"));
        owner.kill();
        CHECK(owner.template_has_ended(60'000));
    }
}

TEST_CASE("A template that has closed what it was given, and then blocks, ends with its owner") {
    SECTION("in what it preloads") {
        IdleOwner owner(1, {"close-when-blocked", "block"});
        REQUIRE(takes_name(owner.template_pid(), "blocked"));
        owner.kill();
        CHECK(owner.template_has_ended(60'000));
    }
    SECTION("in a fork handler, at its gate") {
        IdleOwner owner(1, {"close-when-blocked", "block-prepare:0"});
        REQUIRE(takes_name(owner.template_pid(), "blocked"));
        owner.kill();
        CHECK(owner.template_has_ended(60'000));
    }
    SECTION("though a forked copy of the owner lives on") {
        Pipe life;
        IdleOwner owner(1, {"close-when-blocked", "block"}, [&](pid_t) {
            if (::fork() > 0) return;
            life.write_end.reset();
            char byte;
            ::_exit(::read(life.read_end.get(), &byte, 1) != 0);
        });
        REQUIRE(takes_name(owner.template_pid(), "blocked"));
        owner.kill();
        CHECK(owner.template_has_ended(60'000));
    }
    SECTION("which has become another program") {
        IdleOwner owner(1, {"close-when-blocked", "block"}, [](pid_t owned) {
            if (takes_name(owned, "blocked")) ::execl("/bin/sleep", "sleep", "600", nullptr);
            ::_exit(1);
        });
        CHECK(owner.template_has_ended(60'000));
    }
}

TEST_CASE("A twin that blocks ends, also where its owner has ended") {
    std::vector<std::string> options;
    SECTION("at its gate, as a template, with its owner") {
        // The first two forks are the template's: its gate, and that of the owner.
        options = {"close-when-blocked", "block-prepare:2"};
    }
    SECTION("in a fork handler, before its owner knows of it, after a while") {
        options = {"block-twin"};
    }
    warmfork::Template table = probe_template(0, options, WARMFORK_BACKEND_WARM, true);
    warmfork::Process owner = table.spawn({WARMFORK_PROBE, "own"});
    const pid_t blocked = child_that_takes_name(owner.pid(), "blocked");
    REQUIRE(blocked != 0);
    const warmfork::Descriptor pidfd = warmfork::open_pidfd(blocked);
    owner.signal(SIGKILL);
    CHECK(owner.wait() == SIGKILL);
    CHECK(has_ended(pidfd));
}

TEST_CASE("A child that a fork handler blocks ends with its owner") {
    IdleOwner owner(1, {"block-child"});
    const pid_t blocked = child_that_takes_name(owner.pid(), "blocked");
    REQUIRE(blocked != 0);
    const warmfork::Descriptor pidfd = warmfork::open_pidfd(blocked);
    owner.kill();
    CHECK(has_ended(pidfd));
    CHECK(owner.template_has_ended(60'000));
}

TEST_CASE("What is stopped when its owner is killed ends as well") {
    IdleOwner owner(1, {});
    const pid_t spare = child_that_takes_name(owner.pid(), "warmfork-spare");
    REQUIRE(spare != 0);
    const warmfork::Descriptor pidfd = warmfork::open_pidfd(spare);
    SECTION("template and spare") {
        ::kill(owner.template_pid(), SIGSTOP);
        ::kill(spare, SIGSTOP);
        owner.kill();
        CHECK(owner.template_has_ended(60'000));
    }
    SECTION("a spare whose template has ended") {
        ::kill(spare, SIGSTOP);
        ::kill(owner.template_pid(), SIGKILL);
        REQUIRE(owner.template_has_ended(60'000));
        owner.kill();
    }
    CHECK(has_ended(pidfd));
}
