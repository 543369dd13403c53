// How the daemon begins and ends, what it tells systemd, and what it leaves.
#include <fcntl.h>
#include <fmt/format.h>
#include <poll.h>
#include <signal.h>
#include <sys/socket.h>
#include <sys/stat.h>
#include <sys/un.h>
#include <sys/wait.h>
#include <unistd.h>

#include <filesystem>
#include <fstream>
#include <iterator>

#include "protocol/layout.hpp"
#include "service/requests.hpp"
#include "support/catch.hpp"
#include "support/service.hpp"

using namespace warmfork;
namespace fs = std::filesystem;
using Settings = TestService::Settings;

namespace {

constexpr uid_t kNobody = 65534;

/// A socket that is there need not be listened to yet, and a connection would be its first client.
bool is_listened_to(const std::string& socket) {
    std::ifstream sockets("/proc/net/unix");
    for (std::string line; std::getline(sockets, line);)
        if (line.ends_with(" " + socket) && line.find(" 00010000 ") != std::string::npos)
            return true;
    return false;
}

}  // namespace

// Notifications.

TEST_CASE("It says that it is ready, reloading, stopping, and what it does") {
    TestService service;
    REQUIRE(service.is_ready());
    RawClient client(service.socket());
    CHECK(service.has_said("STATUS=1 clients, 0 children"));
    service.signal(SIGHUP);
    const std::string reloading = [&] {
        while (true)
            if (std::string said = service.next_notification();
                said.empty() || said.find("RELOADING=1") != std::string::npos)
                return said;
    }();
    CHECK(reloading.find("MONOTONIC_USEC=") != std::string::npos);
    CHECK(service.has_said("READY=1"));
    service.signal(SIGTERM);
    CHECK(service.has_said("STOPPING=1"));
    CHECK(service.wait() == 0);
}

TEST_CASE("A manager that reads nothing does not stop it", "[slow]") {
    Settings settings;
    settings.is_watched = true;
    TestService service(std::move(settings));
    const Descriptor words(::socket(AF_UNIX, SOCK_DGRAM | SOCK_CLOEXEC, 0));
    sockaddr_un address{AF_UNIX, {}};
    const std::string place = service.directory() + "/notify";
    place.copy(address.sun_path, sizeof address.sun_path - 1);
    const auto fill = [&] {
        while (::sendto(words.get(), "X=1", 3, MSG_DONTWAIT,
                        reinterpret_cast<const sockaddr*>(&address), sizeof address) == 3) {
        }
        return errno;
    };
    REQUIRE(fill() == EAGAIN);
    // Each is a change of what it says, and longer than it lets pass between two words.
    for (int i = 0; i < 3; ++i) {
        CHECK(as_client(service, [] {
                  Template table = Template::connect("probe", WARMFORK_BACKEND_WARM);
                  ProbeRequest request({"wait"});
                  Process child = table.spawn(request.get());
                  ::poll(nullptr, 0, 700);
                  child.signal(SIGKILL);
                  return WTERMSIG(child.wait()) == SIGKILL ? 0 : 1;
              }) == 0);
    }
    service.signal(SIGTERM);
    CHECK(service.wait() == 0);
}

TEST_CASE("Templates get nothing of what systemd tells the service") {
    Settings settings;
    settings.is_watched = true;
    TestService service(std::move(settings));
    REQUIRE(spawns_in(service) == 7);
    std::ifstream file(fmt::format("/proc/{}/environ", children_of(service.pid()).at(0)));
    const std::string environment(std::istreambuf_iterator<char>(file), {});
    CHECK(environment.find("PATH=") != std::string::npos);
    CHECK(environment.find("NOTIFY_SOCKET=") == std::string::npos);
    CHECK(environment.find("WATCHDOG_") == std::string::npos);
}

TEST_CASE("It feeds the watchdog, also after a reload") {
    Settings settings;
    settings.is_watched = true;
    TestService service(std::move(settings));
    CHECK(service.has_said("WATCHDOG=1"));
    service.signal(SIGHUP);
    CHECK(service.has_said("RELOADING=1"));
    CHECK(service.has_said("READY=1"));
    CHECK(service.has_said("WATCHDOG=1"));
}

// Where it listens.

TEST_CASE("A second daemon steps back with status 3") {
    TestService service;
    Settings same;
    same.socket = service.socket();
    TestService second(std::move(same));
    CHECK(!second.is_ready());
    CHECK(second.wait() == 3);
    CHECK(second.log().find("another warmforkd") != std::string::npos);
    CHECK(spawns_in(service) == 7);
}

TEST_CASE("A stale socket file is replaced") {
    TestService service;
    service.kill();
    REQUIRE(fs::exists(service.socket()));
    service.start();
    REQUIRE(service.is_ready());
    CHECK(spawns_in(service) == 7);
    service.signal(SIGTERM);
    CHECK(service.wait() == 0);
    CHECK(!fs::exists(service.socket()));
}

TEST_CASE("A runtime directory that is missing or not this user's alone is refused by name") {
    TemporaryDirectory place;
    std::string directory = place.path() + "/sub", expected;
    mode_t mode = 0700;
    SECTION("missing") {
        directory = place.path() + "/none/sub";
        expected = "cannot make the directory " + directory;
    }
    SECTION("open to others") {
        mode = 0777;
        ::mkdir(directory.c_str(), 0700);
        expected = directory + " is not a directory of this user's alone";
    }
    SECTION("a file") {
        place.write("sub", "");
        expected = directory + " is not a directory of this user's alone";
    }
    SECTION("a link") {
        ::mkdir((place.path() + "/other").c_str(), 0700);
        fs::create_symlink(place.path() + "/other", directory);
        expected = directory + " is not a directory of this user's alone";
        mode = 0;
    }
    SECTION("in one that others may change") {
        ::mkdir(directory.c_str(), 0700);
        ::chmod(place.path().c_str(), 0777);
        expected = "others may rename what is in " + place.path();
    }
    SECTION("another user's") {
        if (::geteuid() != 0) return;
        ::mkdir(directory.c_str(), 0700);
        REQUIRE(::chown(directory.c_str(), kNobody, kNobody) == 0);
        expected = directory + " is not a directory of this user's alone";
    }
    if (mode == 0777) ::chmod(directory.c_str(), mode);
    Settings settings;
    settings.socket = directory + "/socket";
    TestService service(std::move(settings));
    CHECK(!service.is_ready());
    CHECK(service.wait() == 1);
    CHECK(service.log().find(expected) != std::string::npos);
}

TEST_CASE("systemd passes the socket on, and the first client starts the daemon") {
    const std::string activate = "/usr/bin/systemd-socket-activate";
    if (!fs::exists(activate)) return;
    TemporaryDirectory place;
    place.write("config/templates.d/probe.toml", probe_definition());
    const std::string socket = place.path() + "/socket", config = place.path() + "/config";
    const Descriptor log(
        ::open((place.path() + "/log").c_str(), O_WRONLY | O_CREAT | O_CLOEXEC, 0600));
    const pid_t pid = ::fork();
    if (pid == 0) {
        ::dup2(log.get(), 1);
        ::dup2(log.get(), 2);
        ::execl(activate.c_str(), activate.c_str(), "--seqpacket", "-l", socket.c_str(), "-E",
                "PATH", "-E", "ASAN_OPTIONS", WARMFORKD, "--config", config.c_str(), "--idle-exit",
                "0.05", nullptr);
        ::_exit(127);
    }
    const Descriptor pidfd = open_pidfd(pid);
    for (int tries = 0; tries < 2000 && !is_listened_to(socket); ++tries) ::poll(nullptr, 0, 5);
    const pid_t client = ::fork();
    if (client == 0) {
        ::setenv("WARMFORK_SOCKET", socket.c_str(), 1);
        int status = 99;
        try {
            status = spawn_once();
        } catch (const std::exception& error) {
            fmt::print(stderr, "{}\n", error.what());
        }
        ::_exit(status);
    }
    int status = 0;
    ::waitpid(client, &status, 0);
    CHECK(WEXITSTATUS(status) == 7);
    // Nobody needs it any more: it ends, and leaves systemd's socket where it is.
    CHECK(has_ended(pidfd));
    ::kill(pid, SIGKILL);
    ::waitpid(pid, &status, 0);
    CHECK(status == 0);
    CHECK(fs::exists(socket));
}

// Ends.

TEST_CASE("A stop that comes together with a reload is not lost") {
    for (int round = 0; round < 10; ++round) {
        TestService service;
        RawClient client(service.socket());
        ::kill(service.pid(), SIGSTOP);
        if (round % 2) service.signal(SIGHUP);
        client.send(ServiceKind::manage, 1, FieldWriter().text("reload").text("").bytes());
        service.signal(SIGTERM);
        ::kill(service.pid(), SIGCONT);
        REQUIRE(service.wait() == 0);
    }
}

TEST_CASE("It exits when nobody has needed it for a while, and takes its socket file along") {
    Settings settings;
    settings.options = {"--idle-exit", "2"};  // which is enough for the client to come
    TestService service(std::move(settings));
    CHECK(spawns_in(service) == 7);
    CHECK(service.wait() == 0);
    CHECK(!fs::exists(service.socket()));
}

TEST_CASE("A stop waits for the children, tells their statuses and frees the place at once") {
    TestService service;
    ClientProcess client(service, [] {
        Template table = Template::connect("probe", WARMFORK_BACKEND_WARM);
        Pipe cue;
        ProbeRequest request({"cue", "exit", "5"});
        request.descriptors.push_back({cue.read_end.get(), 0});
        Process child = table.spawn(request.get());
        say("spawned");
        await_cue();
        cue.write_end.reset();
        return WEXITSTATUS(child.wait());
    });
    REQUIRE(client.next_line() == "spawned");
    const std::string place = service.socket();
    service.signal(SIGTERM);
    REQUIRE(service.has_said("STOPPING=1"));
    Settings same;
    same.socket = place;
    TestService next(std::move(same));
    CHECK(next.is_ready());
    client.give_cue();
    CHECK(client.wait() == 5);
    CHECK(service.wait() == 0);
    CHECK(fs::exists(place));  // the next one's
}

TEST_CASE("A stop does not wait for spares that a client holds and has not used") {
    TestService service;
    RawClient client(service.socket());
    const ServiceMessage leased = lease_one(client);
    REQUIRE(leased.kind == ServiceKind::leased);
    const pid_t spare = pid_of(leased);
    for (int tries = 0; tries < 2000 && name_of(spare) != kSpareName; ++tries)
        ::poll(nullptr, 0, 5);  // a rehearsal tells nobody of its end
    service.signal(SIGTERM);
    CHECK(service.wait() == 0);
    CHECK(service.has_logged("stopping: 1 children"));
    CHECK(service.log().find("did not end by themselves") == std::string::npos);
    pollfd polled{leased.descriptors[0].get(), POLLIN, 0};  // its pidfd
    CHECK(::poll(&polled, 1, 30000) == 1);
}

TEST_CASE("Told to stop twice it ends the children, but not those that are detached") {
    TestService service;
    ClientProcess client(service, [] {
        Template table = Template::connect("probe", WARMFORK_BACKEND_WARM);
        Process child = table.spawn({WARMFORK_PROBE, "stubborn"});
        ProbeRequest request({"wait"});
        request.request.flags |= WARMFORK_DETACHED;
        Process detached = table.spawn(request.get());
        say(fmt::format("{}", detached.pid()));
        return WTERMSIG(child.wait());
    });
    const pid_t detached = std::stoi(client.next_line());
    const Descriptor pidfd = open_pidfd(detached);
    service.signal(SIGTERM);
    REQUIRE(service.has_said("STOPPING=1"));
    service.signal(SIGTERM);
    CHECK(client.wait() == SIGKILL);
    CHECK(service.wait() == 0);
    CHECK(is_running(detached));
    signal_pidfd(pidfd.get(), SIGKILL);
}
