// Keepers: that they look after all that they are given, and what becomes of that when they die.
#include <poll.h>
#include <signal.h>
#include <sys/prctl.h>
#include <sys/resource.h>
#include <sys/syscall.h>
#include <sys/wait.h>
#include <unistd.h>

#include <algorithm>
#include <atomic>
#include <functional>
#include <thread>

#include "keeper/keeper.hpp"
#include "owner/companions.hpp"
#include "support/catch.hpp"
#include "support/processes.hpp"
#include "support/signal_rain.hpp"

using warmfork::Descriptor;

namespace {

/// Another process, which the test may kill. What it prints are pids, each of which is watched from
/// then on.
class Actor {
  public:
    explicit Actor(const std::function<void(Actor&)>& act) {
        pid_ = ::fork();
        if (pid_ != 0) {
            output_.write_end.reset();
            return;
        }
        ::alarm(120);
        act(*this);
        while (true) ::pause();
    }
    ~Actor() {
        kill();
        for (const Descriptor& pidfd : watched_) warmfork::signal_pidfd(pidfd.get(), SIGKILL);
    }

    // In the actor:
    void say(pid_t pid) {
        if (::write(output_.write_end.get(), &pid, sizeof pid) != sizeof pid) ::_exit(1);
    }

    // In the test:
    /// The next number that it says; 0: it has ended.
    pid_t hear() {
        pid_t said = 0;
        if (::read(output_.read_end.get(), &said, sizeof said) != sizeof said) return 0;
        return said;
    }
    void watch(int count) {
        for (int i = 0; i < count; ++i) {
            watched_.push_back(warmfork::open_pidfd(hear()));
            REQUIRE(watched_.back());
        }
    }
    void kill() {
        if (pid_ <= 0) return;
        ::kill(pid_, SIGKILL);
        ::waitpid(pid_, nullptr, 0);
        pid_ = 0;
    }
    bool all_have_ended() const {
        return std::all_of(watched_.begin(), watched_.end(),
                           [](const Descriptor& pidfd) { return has_ended(pidfd); });
    }
    const std::vector<Descriptor>& watched() const { return watched_; }
    pid_t pid() const { return pid_; }

  private:
    Pipe output_;
    pid_t pid_ = 0;
    std::vector<Descriptor> watched_;
};

/// Cold, of /bin/sleep. By a thread of its own: without a parent-death signal.
pid_t spawn_sleeper(const char* const* arguments = nullptr) {
    static const char* const sleep[] = {"/bin/sleep", "1000", nullptr};
    warmfork_request request;
    warmfork_request_init(&request);
    request.arguments = arguments ? arguments : sleep;
    warmfork_process* process = nullptr;
    int error = 0;
    std::thread([&] { error = warmfork_spawn(nullptr, &request, &process, nullptr); }).join();
    if (error) return error;
    const pid_t pid = warmfork_process_pid(process);
    warmfork_process_free(process);
    return pid;
}

/// Of this process, which adopts orphans.
std::vector<int> own_keepers() {
    std::vector<int> keepers = children_of(::getpid());
    std::erase_if(keepers, [](int pid) { return name_of(pid) != "warmfork-keeper"; });
    return keepers;
}

/// Until the kernel has delivered it.
void send_and_wait(pid_t pid, int signal) {
    ::kill(pid, signal);
    siginfo_t info;
    ::waitid(P_PID, static_cast<id_t>(pid), &info,
             (signal == SIGSTOP ? WSTOPPED : WEXITED) | WNOWAIT);
}

}  // namespace

TEST_CASE("More cold children than a keeper may have descriptors end with their owner",
          "[numbers]") {
    Actor owner([](Actor& self) {
        const rlimit limit{64, 64};
        ::setrlimit(RLIMIT_NOFILE, &limit);
        ::prctl(PR_SET_CHILD_SUBREAPER, 1);
        for (int i = 0; i < 100; ++i) self.say(spawn_sleeper());
        self.say(static_cast<pid_t>(own_keepers().size()));
    });
    owner.watch(100);
    CHECK(owner.hear() == 2);
    owner.kill();
    CHECK(owner.all_have_ended());
}

TEST_CASE("A keeper that a child's descriptor does not reach says so to whoever asks") {
    const Descriptor self = warmfork::open_pidfd(::getpid());
    warmfork::StartedKeeper keeper;
    REQUIRE(warmfork::start_keeper(warmfork::find_companion("warmfork-keeper"), self.get(),
                                   keeper) == 0);
    const pid_t pid = fork_idler();
    const Descriptor child = warmfork::open_pidfd(pid);
    const int socket = keeper.socket.get();
    rlimit limit{};
    ::prlimit(keeper.process.pid, RLIMIT_NOFILE, nullptr, &limit);
    // Its own five and an epoll instance: the kernel drops what has no number.
    const rlimit none{6, limit.rlim_max};
    REQUIRE(::prlimit(keeper.process.pid, RLIMIT_NOFILE, &none, nullptr) == 0);
    CHECK(warmfork::give_to_keeper(socket, child.get(), false) == EMFILE);
    REQUIRE(::prlimit(keeper.process.pid, RLIMIT_NOFILE, &limit, nullptr) == 0);
    CHECK(warmfork::give_to_keeper(socket, child.get(), false) == 0);

    // The service asks without waiting, and with two: one alone is not a child of its owner.
    const rlimit one{8, limit.rlim_max};
    REQUIRE(::prlimit(keeper.process.pid, RLIMIT_NOFILE, &one, nullptr) == 0);
    REQUIRE(warmfork::send_for(socket, child.get(), self.get()) == 0);
    warmfork::KeeperAnswer answer{};
    pollfd polled{socket, POLLIN, 0};
    REQUIRE(::poll(&polled, 1, 60'000) == 1);
    REQUIRE(warmfork::receive_answer(socket, answer) == 0);
    CHECK(answer.error_number == EMFILE);
    ::kill(pid, SIGKILL);
    ::waitpid(pid, nullptr, 0);
}

TEST_CASE("A keeper that was killed is replaced, and the next one told of its children") {
    Actor owner([](Actor& self) {
        ::prctl(PR_SET_CHILD_SUBREAPER, 1);
        self.say(spawn_sleeper());
        for (int pid : own_keepers()) send_and_wait(pid, SIGKILL);
        self.say(spawn_sleeper());
        self.say(static_cast<pid_t>(own_keepers().size()));
    });
    owner.watch(2);
    CHECK(owner.hear() == 1);
    owner.kill();
    CHECK(owner.all_have_ended());
}

TEST_CASE("A warm spawn finds a keeper that was killed as well") {
    Actor owner([](Actor& self) {
        ::prctl(PR_SET_CHILD_SUBREAPER, 1);
        warmfork::Template table = probe_template(1);
        self.say(spawn_sleeper());
        for (int pid : own_keepers()) send_and_wait(pid, SIGKILL);
        table.spawn({WARMFORK_PROBE, "exit", "0"}).wait();
        self.say(static_cast<pid_t>(own_keepers().size()));
        ::pause();
    });
    owner.watch(1);
    CHECK(owner.hear() == 1);
    owner.kill();
    CHECK(owner.all_have_ended());
}

TEST_CASE("A keeper that is stopped holds up one spawn, and its children are told to another") {
    Actor owner([](Actor& self) {
        ::prctl(PR_SET_CHILD_SUBREAPER, 1);
        self.say(spawn_sleeper());
        for (int pid : own_keepers()) send_and_wait(pid, SIGSTOP);
        self.say(spawn_sleeper());
        for (int pid : own_keepers()) self.say(pid);
        self.say(0);
    });
    owner.watch(2);
    std::vector<Descriptor> keepers;
    while (const pid_t pid = owner.hear()) keepers.push_back(warmfork::open_pidfd(pid));
    CHECK(keepers.size() == 2);
    owner.kill();
    CHECK(owner.all_have_ended());
    for (const Descriptor& keeper : keepers) warmfork::signal_pidfd(keeper.get(), SIGKILL);
}

TEST_CASE("The wait for a keeper that is stopped has an end, whatever signals come") {
    Actor owner([](Actor& self) {
        ::prctl(PR_SET_CHILD_SUBREAPER, 1);
        const Descriptor own = warmfork::open_pidfd(::getpid());
        warmfork::StartedKeeper keeper;
        self.say(
            warmfork::start_keeper(warmfork::find_companion("warmfork-keeper"), own.get(), keeper));
        self.say(keeper.process.pid);
        send_and_wait(keeper.process.pid, SIGSTOP);
        const SignalRain rain;
        self.say(warmfork::give_to_keeper(keeper.socket.get(), own.get(), false));
    });
    REQUIRE(owner.hear() == 0);
    owner.watch(1);
    CHECK(owner.hear() == ETIMEDOUT);
}

TEST_CASE("Where no process is left for a keeper the child is started, and given to one later") {
    if (::geteuid() != 0) return;
    Actor owner([](Actor& self) {
        // Of a user who has no other processes, and whom the limit binds.
        rlimit limit{3, 100};  // this one, its thread, the child
        if (::setuid(2'000'000'011) < 0 || ::access(WARMFORK_PROBE, X_OK) < 0) ::_exit(0);
        ::prctl(PR_SET_CHILD_SUBREAPER, 1);
        ::setrlimit(RLIMIT_NPROC, &limit);
        self.say(spawn_sleeper());
        self.say(static_cast<pid_t>(own_keepers().size()));
        limit.rlim_cur = limit.rlim_max;
        ::setrlimit(RLIMIT_NPROC, &limit);
        self.say(spawn_sleeper());
        self.say(static_cast<pid_t>(own_keepers().size()));
    });
    const pid_t first = owner.hear();
    if (first == 0) return;  // that user may not enter the build's directory
    REQUIRE(first > 0);
    const Descriptor child = warmfork::open_pidfd(first);
    CHECK(owner.hear() == 0);
    owner.watch(1);
    CHECK(owner.hear() == 1);
    owner.kill();
    CHECK(has_ended(child));
    CHECK(owner.all_have_ended());
}

TEST_CASE(
    "Where too many descriptors are in flight a child is started, and given to a keeper later") {
    if (::geteuid() != 0) return;
    Actor owner([](Actor& self) {
        // Of a user whose descriptors nobody else has in flight, and whom the limit binds.
        const rlimit limit{64, 64};
        if (::setuid(2'000'000'012) < 0 || ::access(WARMFORK_PROBE, X_OK) < 0) ::_exit(0);
        ::prctl(PR_SET_CHILD_SUBREAPER, 1);
        ::setrlimit(RLIMIT_NOFILE, &limit);
        ::signal(SIGTERM, SIG_DFL);  // by which the keeper ends it
        const pid_t other = fork_idler();
        {
            InFlight in_flight(65);
            for (int i = 0; i < 3; ++i) self.say(spawn_sleeper());
            self.say(warmfork_keep(other, nullptr));
            self.say(static_cast<pid_t>(own_keepers().size()));
        }
        self.say(other);
        self.say(spawn_sleeper());
        self.say(static_cast<pid_t>(own_keepers().size()));
    });
    std::vector<Descriptor> children;
    for (int i = 0; i < 3; ++i) {
        const pid_t pid = owner.hear();
        if (i == 0 && pid == 0) return;  // that user may not enter the build's directory
        REQUIRE(pid > 0);
        children.push_back(warmfork::open_pidfd(pid));
    }
    CHECK(owner.hear() == 0);
    CHECK(owner.hear() == 1);
    owner.watch(2);
    CHECK(owner.hear() == 1);
    owner.kill();
    for (const Descriptor& child : children) CHECK(has_ended(child));
    CHECK(owner.all_have_ended());
}

TEST_CASE("An owner without a free descriptor has cold children without a keeper") {
    Actor owner([](Actor& self) {
        const rlimit limit{64, 64};
        ::setrlimit(RLIMIT_NOFILE, &limit);
        std::vector<Descriptor> taken;
        while (Descriptor one{::open("/dev/null", O_RDWR | O_CLOEXEC)})
            taken.push_back(std::move(one));
        // How many of those a keeper's start takes by and by is not to matter.
        for (int i = 0; i < 8; ++i) {
            self.say(spawn_sleeper());
            taken.pop_back();
        }
    });
    for (int i = 0; i < 8; ++i) {
        const pid_t pid = owner.hear();
        CHECK(pid > 0);
        if (pid > 0) ::kill(pid, SIGKILL);
    }
}

TEST_CASE("An owner that adopts its keeper can wait until no child is left") {
    Actor owner([](Actor& self) {
        ::prctl(PR_SET_CHILD_SUBREAPER, 1);
        const char* const arguments[] = {"/bin/sh", "-c", "exit 3", nullptr};
        const pid_t child = spawn_sleeper(arguments);
        int status, right = 0;
        for (pid_t pid; (pid = ::wait(&status)) > 0;)
            right += pid == child && WEXITSTATUS(status) == 3;
        self.say(right);
    });
    CHECK(owner.hear() == 1);
}

TEST_CASE("The start of a keeper is seen by no wait and raises no SIGCHLD") {
    Actor owner([](Actor& self) {
        static volatile sig_atomic_t told = 0;
        struct sigaction action {};
        action.sa_handler = [](int) { told = told + 1; };
        ::sigaction(SIGCHLD, &action, nullptr);
        const pid_t child = spawn_sleeper();
        self.say(child);
        self.say(told);
        siginfo_t info{};
        ::waitid(P_ALL, 0, &info, WEXITED | WNOWAIT | WNOHANG);
        self.say(info.si_pid);
    });
    owner.watch(1);
    CHECK(owner.hear() == 0);
    CHECK(owner.hear() == 0);
    owner.kill();
    CHECK(owner.all_have_ended());
}

TEST_CASE("An owner that closes what it did not open keeps its cold children") {
    Actor owner([](Actor& self) {
        self.say(spawn_sleeper());
        // The keeper sees the end of file; the next child has a keeper of its own.
        for (int number = 700; number < 1024; ++number) ::close(number);
        self.say(spawn_sleeper());
    });
    owner.watch(2);
    for (const Descriptor& child : owner.watched()) {
        pollfd polled{child.get(), POLLIN, 0};
        CHECK(::poll(&polled, 1, 0) == 0);
    }
    owner.kill();
    CHECK(owner.all_have_ended());
}

TEST_CASE("The main thread's end leaves what another thread has opened and spawned") {
    Actor owner([](Actor& self) {
        static std::atomic<bool> is_done = false;
        std::thread([&self] {
            auto* table = new warmfork::Template(probe_template(1));
            for (warmfork_backend backend : {WARMFORK_BACKEND_WARM, WARMFORK_BACKEND_COLD}) {
                ProbeRequest request({"wait"});
                request.descriptors.push_back({-1, 1});
                request.request.backend = backend;
                self.say(table->spawn(request.get()).pid());
            }
            is_done = true;
            is_done.notify_one();
            // Until the kernel says that the main thread has ended.
            while (is_running(::getpid())) {
            }
            self.say(1);
            ::pause();
        }).detach();
        is_done.wait(false);
        ::syscall(SYS_exit, 0);  // the thread's, as pthread_exit does last
    });
    owner.watch(2);
    CHECK(owner.hear() == 1);
    for (const Descriptor& child : owner.watched()) {
        pollfd polled{child.get(), POLLIN, 0};
        CHECK(::poll(&polled, 1, 0) == 0);
    }
    owner.kill();
    CHECK(owner.all_have_ended());
}
