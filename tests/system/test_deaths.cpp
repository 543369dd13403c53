// Real kill -9 at every step. Who is waited for is waited for by pidfd: nothing sleeps, nothing
// guesses.
#include <fcntl.h>
#include <signal.h>
#include <sys/stat.h>
#include <sys/wait.h>
#include <unistd.h>

#include <cstring>
#include <fstream>
#include <optional>
#include <sstream>
#include <thread>

#include "support/catch.hpp"
#include "support/processes.hpp"
#include "support/signal_rain.hpp"

using warmfork::Descriptor;

namespace {

/// A warmfork-test-owner, whose processes are watched.
class Owner {
  public:
    explicit Owner(const std::vector<std::string>& words) {
        std::vector<std::string> command{WARMFORK_TEST_OWNER};
        command.insert(command.end(), words.begin(), words.end());
        const auto arguments = warmfork::detail::pointers(command);
        pid_ = ::fork();
        if (pid_ == 0) {
            ::dup2(input_.read_end.get(), 0);
            ::dup2(output_.write_end.get(), 1);
            ::execv(arguments[0], const_cast<char* const*>(arguments.data()));
            ::_exit(127);
        }
        output_.write_end.reset();
        input_.read_end.reset();
        pids_ = read_line();
        for (int pid : pids_) watched_.push_back(warmfork::open_pidfd(pid));
    }
    ~Owner() {
        ::kill(pid_, SIGKILL);
        ::waitpid(pid_, nullptr, 0);
        for (int pid : pids_)
            if (is_running(pid)) ::kill(pid, SIGKILL);
    }

    void kill() {
        ::kill(pid_, SIGKILL);
        ::waitpid(pid_, nullptr, 0);
    }
    pid_t pid() const { return pid_; }
    int template_pid() const { return pids_.at(0); }
    int child(std::size_t index) const { return pids_.at(index + 1); }
    bool template_has_ended() const { return has_ended(watched_.at(0)); }
    bool child_has_ended(std::size_t index) const { return has_ended(watched_.at(index + 1)); }
    std::vector<int> read_line() {
        std::string line;
        for (char byte; ::read(output_.read_end.get(), &byte, 1) == 1 && byte != '\n';)
            line += byte;
        std::istringstream stream(line);
        std::vector<int> numbers;
        for (int number; stream >> number;) numbers.push_back(number);
        return numbers;
    }
    void say() { REQUIRE(::write(input_.write_end.get(), "\n", 1) == 1); }

  private:
    Pipe input_, output_;
    pid_t pid_;
    std::vector<int> pids_;
    std::vector<Descriptor> watched_;
};

}  // namespace

TEST_CASE("When the owner is killed everything ends, also what ignores SIGTERM") {
    Owner owner({"normal", "wait", "stubborn"});
    const std::vector<int> spares = children_of(owner.pid());
    std::vector<Descriptor> all;
    for (int pid : spares) all.push_back(warmfork::open_pidfd(pid));
    owner.kill();
    CHECK(owner.child_has_ended(0));
    CHECK(owner.child_has_ended(1));
    CHECK(owner.template_has_ended());
    for (const Descriptor& pidfd : all) CHECK(has_ended(pidfd));
}

TEST_CASE("A template that is stopped when its owner is killed still ends the children") {
    Owner owner({"normal", "wait", "stubborn"});
    ::kill(owner.template_pid(), SIGSTOP);
    owner.kill();
    CHECK(owner.child_has_ended(0));
    CHECK(owner.child_has_ended(1));
    CHECK(owner.template_has_ended());
}

TEST_CASE("A template that is stopped is closed in time, whatever signals come meanwhile") {
    const std::string wrong = in_an_owner([] {
        ::alarm(120);
        std::optional<warmfork::Template> table = probe_template(1);
        table->wait_parked(1);  // one that preloads would be killed at once
        const pid_t pid = warmfork_template_pid(table->handle());
        ::kill(pid, SIGSTOP);
        const SignalRain rain;
        table.reset();
        return std::string(is_running(pid) ? "it still runs" : "");
    });
    CHECK(wrong.empty());
}

TEST_CASE("A detached child outlives its owner") {
    for (const char* mode : {"normal", "cold"}) {
        Owner owner({mode, "detached", "wait"});
        owner.kill();
        CHECK(owner.child_has_ended(1));
        CHECK(owner.template_has_ended());
        CHECK(is_running(owner.child(0)));
    }
}

TEST_CASE("Cold children end with their owner too") {
    Owner owner({"cold", "wait", "stubborn"});
    owner.kill();
    CHECK(owner.child_has_ended(0));
    CHECK(owner.child_has_ended(1));
}

TEST_CASE("The end of the thread that opened the template ends nothing") {
    Owner owner({"thread", "wait"});
    CHECK(is_running(owner.child(0)));
    CHECK(is_running(owner.template_pid()));
    owner.kill();
    CHECK(owner.child_has_ended(0));
    CHECK(owner.template_has_ended());
}

TEST_CASE("Children of a template that was closed still end with their owner") {
    Owner owner({"close", "wait", "stubborn"});
    owner.say();
    owner.read_line();  // closed
    CHECK(owner.template_has_ended());
    CHECK(is_running(owner.child(0)));
    owner.kill();
    CHECK(owner.child_has_ended(0));
    CHECK(owner.child_has_ended(1));
}

TEST_CASE("A forked worker that holds all descriptors does not hide the owner's death") {
    Owner owner({"worker", "wait"});
    const int worker = owner.read_line().at(0);
    owner.kill();
    CHECK(owner.child_has_ended(0));
    CHECK(owner.template_has_ended());
    ::kill(worker, SIGKILL);
}

TEST_CASE("An owner that execs has left its template") {
    Owner owner({"exec", "wait"});
    owner.say();
    CHECK(owner.child_has_ended(0));
    CHECK(owner.template_has_ended());
}

TEST_CASE("When owner and template are killed together the child ends by its parent-death signal") {
    Owner owner({"normal", "wait"});
    ::kill(owner.template_pid(), SIGSTOP);  // so that it cannot be the one that ends the child
    ::kill(owner.pid(), SIGKILL);
    ::kill(owner.template_pid(), SIGKILL);
    CHECK(owner.child_has_ended(0));
}

TEST_CASE("When the template is killed its children run on and the next spawn has a new one") {
    warmfork::Template table = probe_template(1);
    ProbeRequest request({"wait"});
    request.descriptors.push_back({-1, 1});
    warmfork::Process child = table.spawn(request.get());
    const pid_t first = warmfork_template_pid(table.handle());
    const Descriptor template_pidfd = warmfork::open_pidfd(first);
    ::kill(first, SIGKILL);
    REQUIRE(has_ended(template_pidfd));
    int status;
    CHECK_FALSE(child.poll(status));
    output_of(table, {"exit", "4"}, &status);
    CHECK(WEXITSTATUS(status) == 4);
    CHECK(table.counts().template_starts == 2);
    child.signal(SIGTERM);
    CHECK(child.wait() == SIGTERM);
}

TEST_CASE("A template that was killed while idle is reaped by whatever is asked of it next") {
    warmfork::Template table = probe_template(1);
    for (int i = 0; i < 2; ++i) {
        output_of(table, {"exit", "0"});
        const pid_t pid = warmfork_template_pid(table.handle());
        const Descriptor pidfd = warmfork::open_pidfd(pid);
        REQUIRE(::kill(pid, SIGKILL) == 0);
        REQUIRE(has_ended(pidfd));
        if (i == 0)
            CHECK(warmfork_template_pid(table.handle()) == 0);
        else
            CHECK(warmfork_template_parked(table.handle()) == 0);
        CHECK((::waitpid(pid, nullptr, WNOHANG) < 0 && errno == ECHILD));
    }
}

TEST_CASE("Children of a killed template end with the owner, also when they ignore SIGTERM") {
    Pipe output;
    const pid_t owner = ::fork();
    if (owner == 0) {
        // From another thread, where the kernel's parent-death signal is of no use.
        std::thread([&] {
            auto* table = new warmfork::Template(probe_template(1));
            ProbeRequest stubborn({"stubborn"});
            stubborn.descriptors.push_back({-1, 1});
            stubborn.descriptors.push_back({output.write_end.get(), 9});
            table->spawn(stubborn.get());
            const pid_t first = warmfork_template_pid(table->handle());
            const Descriptor pidfd = warmfork::open_pidfd(first);
            ::kill(first, SIGKILL);
            has_ended(pidfd);
            int status;
            output_of(*table, {"exit", "0"}, &status);
        }).join();
        ::raise(SIGKILL);
    }
    ::waitpid(owner, nullptr, 0);
    CHECK(output.read_all().empty());  // blocks until the child has ended
}

TEST_CASE(
    "An application that closes the shim's descriptors keeps its children and its own files") {
    Pipe output;
    const pid_t owner = ::fork();
    if (owner == 0) {
        int right = 0;
        {
            warmfork::Template table = probe_template(1);
            table.wait_parked(1);
            ProbeRequest request({"wait"});
            request.descriptors.push_back({-1, 1});
            warmfork::Process child = table.spawn(request.get());
            const int kept = output.write_end.get();
            for (int number = 3; number < 2000; ++number)
                if (number != kept) ::close(number);
            std::vector<int> own;
            for (int i = 0; i < 60; ++i) own.push_back(::open("/dev/null", O_RDWR));
            ::umask(0123);
            int status = 0;
            const std::string view = output_of(table, {"view"}, &status);
            right += view.find("\"umask\": 83") != std::string::npos;
            right += !child.poll(status);
            child.signal(SIGTERM);
            right += child.wait() == SIGTERM;
            for (int number : own) right += ::fcntl(number, F_GETFD) >= 0;
        }
        const char answer = static_cast<char>(right);
        ::_exit(::write(output.write_end.get(), &answer, 1) == 1 ? 0 : 1);
    }
    const std::string answer = output.read_all();
    ::waitpid(owner, nullptr, 0);
    REQUIRE(answer.size() == 1);
    CHECK(static_cast<int>(answer[0]) == 63);
}

TEST_CASE(
    "A template that is killed while it preloads fails the spawn, and the next one tries again") {
    warmfork::Template table = probe_template(1, {"hang"});
    const pid_t pid = warmfork_template_pid(table.handle());
    ::kill(pid, SIGKILL);
    try {
        output_of(table, {"exit", "0"});
        FAIL("it was served");
    } catch (const warmfork::Error& error) {
        CHECK(error.stage() == WARMFORK_STAGE_LAUNCH);
        CHECK(std::string(error.what()).find("signal 9") != std::string::npos);
    }
}

TEST_CASE("An owner that is killed while its template preloads leaves nothing") {
    Pipe output;
    const pid_t owner = ::fork();
    if (owner == 0) {
        warmfork::Template table = probe_template(1, {"hang"});
        const int pid = warmfork_template_pid(table.handle());
        if (::write(output.write_end.get(), &pid, sizeof pid) < 0) ::_exit(1);
        while (true) ::pause();
    }
    int pid = 0;
    REQUIRE(::read(output.read_end.get(), &pid, sizeof pid) == sizeof pid);
    const Descriptor pidfd = warmfork::open_pidfd(pid);
    ::kill(owner, SIGKILL);
    ::waitpid(owner, nullptr, 0);
    CHECK(has_ended(pidfd));
}

TEST_CASE("A template that is killed between a command and its answer loses no spawn") {
    // Stopped, given a command, and killed before it can take it.
    warmfork::Template table = probe_template(0);
    table.wait_parked(0);
    for (int round = 0; round < 20; ++round) {
        const pid_t pid = warmfork_template_pid(table.handle());
        ::kill(pid, SIGSTOP);
        const pid_t killer = ::fork();
        if (killer == 0) {
            // While the spawn waits for an answer: it has put its command into the ring by then or
            // not.
            spin(round * 20000);
            ::kill(pid, SIGKILL);
            ::_exit(0);
        }
        int status = 0;
        output_of(table, {"exit", "8"}, &status);
        CHECK(WEXITSTATUS(status) == 8);
        ::waitpid(killer, nullptr, 0);
    }
}

TEST_CASE("A child that is killed together with its template before it is announced is reaped") {
    for (int spares : {0, 1}) {  // by a command, and ahead of one
        warmfork::Template table = probe_template(spares, {"die-at-fork"});
        for (int round = 0; round < 3; ++round)
            CHECK_THROWS_AS(table.spawn({WARMFORK_PROBE, "exit", "0"}), warmfork::Error);
    }
    CHECK(children_of(::getpid()).empty());
}

TEST_CASE("A spare that is killed while parked is replaced, and reaped") {
    warmfork::Template table = probe_template(2);
    table.wait_parked(2);
    for (int round = 0; round < 5; ++round) {
        const std::vector<int> parked = spares();
        REQUIRE(parked.size() == 2);
        const Descriptor pidfd = warmfork::open_pidfd(parked[0]);
        ::kill(parked[0], SIGKILL);
        REQUIRE(has_ended(pidfd));
        int status = 0;
        output_of(table, {"exit", "8"}, &status);
        CHECK(WEXITSTATUS(status) == 8);
        table.wait_parked(2);
        CHECK(name_of(parked[0]) == "");
    }
}

TEST_CASE("A spare that is killed right after the hand-off costs nothing but time") {
    warmfork::Template table = probe_template(2);
    table.wait_parked(2);
    // The child is stopped, so that the record lies in its mailbox unread when it is killed.
    const std::vector<int> parked = spares();
    for (int pid : parked) ::kill(pid, SIGSTOP);
    const pid_t killer = ::fork();
    if (killer == 0) {
        spin(3'000'000);
        for (int pid : parked) ::kill(pid, SIGKILL);
        ::_exit(0);
    }
    int status = 0;
    output_of(table, {"exit", "8"}, &status);
    CHECK(WEXITSTATUS(status) == 8);
    ::waitpid(killer, nullptr, 0);
}

TEST_CASE("An owner that is killed with spawns in flight leaves no child behind") {
    for (int round = 0; round < 15; ++round) {
        Pipe output;
        const pid_t owner = ::fork();
        if (owner == 0) {
            warmfork::Template table = probe_template(round % 3);
            const int pid = warmfork_template_pid(table.handle());
            if (::write(output.write_end.get(), &pid, sizeof pid) < 0) ::_exit(1);
            ProbeRequest request({"wait"});
            request.descriptors.push_back({-1, 1});
            // So that the end of the pipe is the end of every process that came from here.
            request.descriptors.push_back({output.write_end.get(), 9});
            while (true) table.spawn(request.get());
        }
        int pid = 0;
        REQUIRE(::read(output.read_end.get(), &pid, sizeof pid) == sizeof pid);
        spin(round * 1'000'000);
        ::kill(owner, SIGKILL);
        ::waitpid(owner, nullptr, 0);
        CHECK(output.read_all().empty());  // blocks until the last one has ended
    }
}

TEST_CASE("An owner that scribbles over the whole segment harms nobody but itself") {
    // The template notices at the next command; its children run on until the owner ends.
    Pipe output;
    const pid_t owner = ::fork();
    if (owner == 0) {
        warmfork::Template table = probe_template(1);
        table.wait_parked(1);
        const int pid = warmfork_template_pid(table.handle());
        std::ifstream maps("/proc/self/maps");
        for (std::string line; std::getline(maps, line);) {
            if (line.find("warmfork-channel") == std::string::npos) continue;
            const auto begin = std::strtoull(line.c_str(), nullptr, 16);
            std::memset(reinterpret_cast<void*>(begin), 0xa5, 4096 + (256 << 10) + (64 << 10));
        }
        if (::write(output.write_end.get(), &pid, sizeof pid) < 0) ::_exit(1);
        ProbeRequest request({"exit", "0"});
        try {
            table.spawn(request.get()).wait();
        } catch (const warmfork::Error&) {
        }
        while (true) ::pause();
    }
    int pid = 0;
    REQUIRE(::read(output.read_end.get(), &pid, sizeof pid) == sizeof pid);
    const Descriptor pidfd = warmfork::open_pidfd(pid);
    ::kill(owner, SIGKILL);
    ::waitpid(owner, nullptr, 0);
    CHECK(has_ended(pidfd));
}
