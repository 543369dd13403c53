// The daemon as a whole: how it begins and ends, whom it lets in, what it allows them.
#include <fcntl.h>
#include <fmt/format.h>
#include <poll.h>
#include <signal.h>
#include <sys/resource.h>
#include <sys/socket.h>
#include <sys/stat.h>
#include <sys/un.h>
#include <sys/wait.h>
#include <unistd.h>

#include <algorithm>
#include <filesystem>
#include <fstream>
#include <iterator>
#include <nlohmann/json.hpp>

#include "protocol/layout.hpp"
#include "support/catch.hpp"
#include "support/service.hpp"

using namespace warmfork;
namespace fs = std::filesystem;
using Settings = TestService::Settings;

namespace {

constexpr uid_t kNobody = 65534;

/// Spawns a probe that exits with 7 and returns its status.
int spawn_once(const std::string& name = "probe") {
    Template table = Template::connect(name, WARMFORK_BACKEND_WARM);
    return WEXITSTATUS(table.spawn({WARMFORK_PROBE, "exit", "7"}).wait());
}

int spawns_in(const TestService& service, const std::string& name = "probe") {
    return as_client(service, [&] { return spawn_once(name); });
}

constexpr unsigned long kFewDescriptors = 96;

/// By a client that may have no more than a service with this limit: it would be served cold.
int spawns_with_few_descriptors(const TestService& service) {
    return as_client(service, [] {
        const rlimit limit{kFewDescriptors, kFewDescriptors};
        return ::setrlimit(RLIMIT_NOFILE, &limit) < 0 ? 98 : spawn_once();
    });
}

std::uint64_t error_of(const ServiceMessage& refused) {
    const auto refusal = read_refusal(refused.body);
    return refusal ? refusal->error_number : 0;
}

/// A socket that is there need not be listened to yet, and a connection would be its first client.
bool is_listened_to(const std::string& socket) {
    std::ifstream sockets("/proc/net/unix");
    for (std::string line; std::getline(sockets, line);)
        if (line.ends_with(" " + socket) && line.find(" 00010000 ") != std::string::npos)
            return true;
    return false;
}

std::string text_of_refusal(const ServiceMessage& refused) {
    const auto refusal = read_refusal(refused.body);
    return refusal ? refusal->text : "";
}

/// Leases one child; the message holds its pidfd and mailbox.
ServiceMessage lease_one(RawClient& client, std::uint64_t request = 1,
                         const std::string& name = "probe") {
    ServiceMessage leased;
    client.send(ServiceKind::lease, request, lease_body(1, kLeaseMayWait, name));
    while (client.receive(leased) == 0)
        if (leased.kind == ServiceKind::leased || leased.kind == ServiceKind::refused) break;
    return leased;
}

/// Its pid, once for all.
pid_t pid_of(const ServiceMessage& leased) {
    const auto child = read_leased_child(leased.body);
    return child ? static_cast<pid_t>(child->pid) : 0;
}

}  // namespace

TEST_CASE("A client spawns from a template by its name and gets the exact status") {
    TestService service;
    REQUIRE(service.is_ready());
    CHECK(spawns_in(service) == 7);
    CHECK(as_client(service, [] {
              Template table = Template::connect("probe", WARMFORK_BACKEND_WARM);
              return WTERMSIG(table.spawn({WARMFORK_PROBE, "raise", "10"}).wait());
          }) == 10);
}

TEST_CASE("The children of a client end with it, unless they are detached") {
    TestService service;
    ClientProcess client(service, [] {
        Template table = Template::connect("probe", WARMFORK_BACKEND_WARM);
        Process child = table.spawn({WARMFORK_PROBE, "wait"});
        ProbeRequest request({"wait"});
        request.request.flags |= WARMFORK_DETACHED;
        Process detached = table.spawn(request.get());
        say(fmt::format("{}", child.pid()));
        say(fmt::format("{}", detached.pid()));
        await_cue();
        return 0;
    });
    const pid_t child = std::stoi(client.next_line()), detached = std::stoi(client.next_line());
    const Descriptor ends = open_pidfd(child), stays = open_pidfd(detached);
    client.kill();
    CHECK(has_ended(ends));
    CHECK(is_running(detached));
    signal_pidfd(stays.get(), SIGKILL);
}

TEST_CASE("What ignores SIGTERM ends with its client all the same") {
    TestService service;
    ClientProcess client(service, [] {
        Template table = Template::connect("probe", WARMFORK_BACKEND_WARM);
        Pipe output;
        ProbeRequest request({"stubborn"});
        request.put_output_on(output);
        Process child = table.spawn(request.get());
        char byte;  // it ignores it by now
        if (::read(output.read_end.get(), &byte, 1) != 1) return 1;
        say(fmt::format("{}", child.pid()));
        await_cue();
        return 0;
    });
    const Descriptor pidfd = open_pidfd(std::stoi(client.next_line()));
    client.kill();
    CHECK(has_ended(pidfd));
}

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

TEST_CASE("A manager that reads nothing does not stop it") {
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

TEST_CASE("A bad file of the configuration shows in the status and in the refusal") {
    Settings settings;
    settings.templates["bad"] = "preloads = [\"json\"]\n";
    TestService service(std::move(settings));
    CHECK(service.log().find("bad.toml:1") != std::string::npos);
    RawClient client(service.socket());
    CHECK(service.has_said("errors in the configuration"));
    client.send(ServiceKind::find, 5, FieldWriter().text("bad").bytes());
    ServiceMessage refused;
    REQUIRE(client.receive(ServiceKind::refused, refused) == 0);
    CHECK(refused.id == 5);
    CHECK(error_of(refused) == ENOENT);
    CHECK(text_of_refusal(refused).find("preload") != std::string::npos);
    CHECK(spawns_in(service) == 7);
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

// Access.

TEST_CASE("Another user is refused with EACCES") {
    if (::geteuid() != 0) return;
    Settings settings;
    settings.has_passed_socket = true;
    TestService service(std::move(settings));
    REQUIRE(service.is_ready());
    CHECK(as_client(service, [&] {
              if (::setresuid(kNobody, kNobody, kNobody) < 0) return 98;
              RawClient client(service.socket(), false);
              ServiceMessage refused;
              if (client.receive(ServiceKind::refused, refused)) return 97;
              if (!client.is_hung_up()) return 96;
              return static_cast<int>(error_of(refused));
          }) == EACCES);
    CHECK(service.has_logged("of user 65534 may not use this service"));
    CHECK(spawns_in(service) == 7);
}

TEST_CASE("A listed user starts the fixed command as the account, and nothing else") {
    if (::geteuid() != 0) return;
    Settings settings;
    settings.has_passed_socket = true;
    settings.daemon = "allowed_users = [65534]\n";
    settings.templates["fixed"] =
        probe_definition(fmt::format("command = [\"{}\", \"wait\"]\n", WARMFORK_PROBE));
    TestService service(std::move(settings));
    REQUIRE(service.is_ready());
    ClientProcess nobody(service, [&] {
        if (::setresgid(kNobody, kNobody, kNobody) < 0 ||
            ::setresuid(kNobody, kNobody, kNobody) < 0)
            return 98;
        RawClient client(service.socket());
        ServiceMessage answer;
        // A lease is a mailbox, and a mailbox is the account.
        client.send(ServiceKind::lease, 1, lease_body(1, kLeaseMayWait, "fixed"));
        if (client.receive(answer) || answer.kind != ServiceKind::refused ||
            error_of(answer) != EACCES)
            return 97;
        client.send(ServiceKind::manage, 2, FieldWriter().text("stop").text("fixed").bytes());
        if (client.receive(answer) || answer.kind != ServiceKind::refused ||
            error_of(answer) != EACCES)
            return 96;
        // A template without such a command is not there for it.
        client.send(ServiceKind::find, 3, FieldWriter().text("probe").bytes());
        if (client.receive(answer) || answer.kind != ServiceKind::refused) return 95;
        Pipe output;
        const int standard[] = {output.write_end.get(), output.write_end.get(),
                                output.write_end.get()};
        client.send(ServiceKind::run, 4, FieldWriter().text("fixed").bytes(), standard);
        if (client.receive(answer) || answer.kind != ServiceKind::leased) return 94;
        if (answer.descriptors.size() != 1) return 93;  // the pidfd; no mailbox
        const auto child = read_leased_child(answer.body);
        char line[16] = {};
        if (::read(output.read_end.get(), line, sizeof line) <= 0) return 92;
        if (std::atoi(line) != static_cast<int>(child->pid)) return 91;
        say(fmt::format("{}", child->pid));
        await_cue();
        if (signal_pidfd(answer.descriptors[0].get(), SIGTERM) == 0 || errno != EPERM) return 90;
        client.send(ServiceKind::signal, child->child, FieldWriter().number(SIGTERM).bytes());
        ServiceMessage exited;
        if (client.receive(exited) || exited.kind != ServiceKind::exited) return 89;
        return WTERMSIG(read_exit_report(exited.body)->status);
    });
    const std::string pid = nobody.next_line();
    REQUIRE(!pid.empty());
    struct stat status;
    REQUIRE(::stat(("/proc/" + pid).c_str(), &status) == 0);
    CHECK(status.st_uid == ::geteuid());
    nobody.give_cue();
    CHECK(nobody.wait() == SIGTERM);
    CHECK(spawns_in(service) == 7);
}

TEST_CASE("A listed user uses the library as everybody does") {
    if (::geteuid() != 0) return;
    Settings settings;
    settings.has_passed_socket = true;
    settings.daemon = "allowed_users = [65534]\n";
    settings.templates["fixed"] =
        probe_definition(fmt::format("command = [\"{}\", \"exit\", \"5\"]\n", WARMFORK_PROBE));
    TestService service(std::move(settings));
    CHECK(as_client(service, [] {
              if (::setresuid(kNobody, kNobody, kNobody) < 0) return 98;
              Template table = Template::connect("fixed", WARMFORK_BACKEND_WARM);
              for (int i = 0; i < 20; ++i)
                  if (WEXITSTATUS(table.spawn({"whatever"}).wait()) != 5) return 97;
              return 5;
          }) == 5);
}

TEST_CASE("A client may signal its own children only") {
    if (::geteuid() != 0) return;
    TestService service;
    RawClient one(service.socket()), other(service.socket());
    const ServiceMessage leased = lease_one(one);
    REQUIRE(leased.kind == ServiceKind::leased);
    other.send(ServiceKind::signal, read_leased_child(leased.body)->child,
               FieldWriter().number(SIGKILL).bytes());
    // Answered in order: so the signal has been dealt with.
    ServiceMessage found;
    other.send(ServiceKind::find, 2, FieldWriter().text("probe").bytes());
    REQUIRE(other.receive(ServiceKind::found, found) == 0);
    CHECK(is_running(pid_of(leased)));
}

// Limits.

/// The answers to that many requests; what is leased is still held.
struct Answers {
    std::vector<Descriptor> mailboxes;
    int refused = 0;
};
Answers answers_of(RawClient& client, int requests) {
    Answers answers;
    while (static_cast<int>(answers.mailboxes.size()) + answers.refused < requests) {
        ServiceMessage answer;
        REQUIRE(client.receive(answer) == 0);
        if (answer.kind == ServiceKind::leased) {
            answers.mailboxes.push_back(std::move(answer.descriptors.at(1)));
        } else if (answer.kind == ServiceKind::refused) {
            CHECK(error_of(answer) == EAGAIN);
            CHECK(text_of_refusal(answer).find("over its limit") != std::string::npos);
            ++answers.refused;
        }
    }
    return answers;
}

TEST_CASE("A user over the limit of children gets EAGAIN, by however many connections") {
    Settings settings;
    settings.templates["probe"] = probe_definition("limits.children = 3\n");
    settings.templates["free"] = probe_definition();
    TestService service(std::move(settings));
    RawClient one(service.socket()), other(service.socket());
    // All at once: what waits counts as well.
    for (std::uint64_t request = 1; request <= 10; ++request) {
        one.send(ServiceKind::lease, request, lease_body());
        other.send(ServiceKind::lease, request, lease_body());
    }
    Answers of_one = answers_of(one, 10);
    {
        const Answers of_other = answers_of(other, 10);
        CHECK(of_one.mailboxes.size() + of_other.mailboxes.size() == 3);
        CHECK(of_one.refused + of_other.refused == 17);
        CHECK(spawns_in(service, "free") == 7);  // whose limit is another
        // Those of a client that goes are the user's until they have ended.
        other.close();
    }
    of_one.mailboxes.clear();
    // With all of them ended there is room again.
    int rooms = 0;
    while (rooms < 3) {
        const ServiceMessage answer = lease_one(one, 20);
        if (answer.kind != ServiceKind::leased) continue;
        of_one.mailboxes.push_back(Descriptor(::dup(answer.descriptors.at(1).get())));
        ++rooms;
    }
    CHECK(lease_one(one, 21).kind == ServiceKind::refused);
}

TEST_CASE("What a client has asked for is not its user's any more when it has gone") {
    Settings settings;
    settings.templates["probe"] = probe_definition("limits.children = 3\n");
    settings.templates["slow"] = probe_definition("limits.children = 3\n", {"hang"});
    TestService service(std::move(settings));
    RawClient(service.socket()).send(ServiceKind::lease, 1, lease_body(3, kLeaseMayWait, "slow"));
    RawClient client(service.socket());
    ServiceMessage answer = lease_one(client);
    // Until its end has been noticed.
    while (answer.kind == ServiceKind::refused) answer = lease_one(client);
    CHECK(answer.kind == ServiceKind::leased);
}

TEST_CASE("All users together have limits as well, and each has its own") {
    if (::geteuid() != 0) return;
    Settings settings;
    settings.has_passed_socket = true;
    settings.daemon = "allowed_users = [65534]\nlimits.children = 3\nlimits_of_all.children = 5\n";
    settings.templates["fixed"] =
        probe_definition(fmt::format("command = [\"{}\", \"wait\"]\n", WARMFORK_PROBE));
    TestService service(std::move(settings));
    ClientProcess nobody(service, [&] {
        if (::setresuid(kNobody, kNobody, kNobody) < 0) return 98;
        const Descriptor null(::open("/dev/null", O_RDWR | O_CLOEXEC));
        const int standard[] = {null.get(), null.get(), null.get()};
        int started = 0;
        std::vector<RawClient> clients;
        for (int i = 0; i < 4; ++i) {
            ServiceMessage answer;
            clients.emplace_back(service.socket());
            clients.back().send(ServiceKind::run, 1, FieldWriter().text("fixed").bytes(), standard);
            if (clients.back().receive(answer)) return 97;
            started += answer.kind == ServiceKind::leased;
        }
        say("started");
        await_cue();
        return started;
    });
    REQUIRE(nobody.next_line() == "started");
    RawClient own(service.socket());
    for (std::uint64_t request = 1; request <= 3; ++request)
        own.send(ServiceKind::lease, request, lease_body());
    const Answers answers = answers_of(own, 3);
    CHECK(answers.mailboxes.size() == 2);
    nobody.give_cue();
    CHECK(nobody.wait() == 3);
}

TEST_CASE("A user over the limit of spawns a second gets EAGAIN, by however many connections") {
    Settings settings;
    settings.templates["probe"] = probe_definition("limits.spawns_per_second = 5\n");
    TestService service(std::move(settings));
    RawClient client(service.socket()), other(service.socket());
    client.send(ServiceKind::lease, 1, lease_body(64));
    ServiceMessage leased;
    REQUIRE(client.receive(ServiceKind::leased, leased) == 0);
    other.send(ServiceKind::lease, 2, lease_body(1));
    ServiceMessage refused;
    REQUIRE(other.receive(ServiceKind::refused, refused) == 0);
    CHECK(refused.id == 2);
    CHECK(error_of(refused) == EAGAIN);
}

TEST_CASE("A user whose waiting requests take too much memory gets EAGAIN") {
    Settings settings;
    settings.templates["probe"] = probe_definition("limits.record_bytes = \"2M\"\n");
    settings.templates["slow"] = probe_definition("limits.record_bytes = \"2M\"\n", {"hang"});
    TestService service(std::move(settings));
    RawClient client(service.socket()), other(service.socket());
    LeaseRequest large{"slow", kLeaseMayWait, 1, {}, {"X=" + std::string(1 << 20, 'x')}, {}};
    REQUIRE(client.send(ServiceKind::lease, 1, write_body(large)) == 0);
    // Answered in order: so the one before has been taken in.
    client.send(ServiceKind::find, 2, FieldWriter().text("slow").bytes());
    ServiceMessage answer;
    REQUIRE(client.receive(ServiceKind::found, answer) == 0);
    REQUIRE(other.send(ServiceKind::lease, 3, write_body(large)) == 0);
    REQUIRE(other.receive(ServiceKind::refused, answer) == 0);
    CHECK(answer.id == 3);
    CHECK(error_of(answer) == EAGAIN);
    CHECK(spawns_in(service) == 7);
}

TEST_CASE("One client's many requests do not come before another's first") {
    constexpr int kMany = 200;
    TestService service;
    REQUIRE(spawns_in(service) == 7);
    const int image = children_of(service.pid()).at(0);  // the oldest
    ::kill(image, SIGSTOP);                              // so that all of them wait
    RawClient greedy(service.socket()), modest(service.socket());
    std::vector<ServiceMessage> given[2];
    const auto receive = [&](RawClient& client) {
        ServiceMessage message;
        REQUIRE(client.receive(message) == 0);
        const ServiceKind kind = message.kind;
        if (kind == ServiceKind::refused) FAIL(text_of_refusal(message));

        if (kind == ServiceKind::leased) given[&client == &modest].push_back(std::move(message));
        return kind;
    };
    // What has been asked before it is answered has been put in its place.
    const auto await_attention = [&](RawClient& client) {
        client.send(ServiceKind::find, 1000, FieldWriter().text("probe").bytes());
        while (receive(client) != ServiceKind::found) {
        }
    };
    for (std::uint64_t request = 1; request <= kMany; ++request)
        REQUIRE(greedy.send(ServiceKind::lease, request, lease_body()) == 0);
    await_attention(greedy);
    modest.send(ServiceKind::lease, 1, lease_body());
    await_attention(modest);
    ::kill(image, SIGCONT);
    while (given[1].empty()) receive(modest);
    while (given[0].size() < kMany) receive(greedy);
    // Children are numbered as they are given away.
    const std::uint64_t order = read_leased_child(given[1][0].body)->child;
    const auto before = std::count_if(given[0].begin(), given[0].end(), [&](const auto& leased) {
        return read_leased_child(leased.body)->child < order;
    });
    CHECK(before < kMany / 10);
}

// Bad times.

TEST_CASE("A client whose descriptors found no number in the service is told so") {
    TestService service;
    RawClient client(service.socket());
    rlimit limit{};
    REQUIRE(::prlimit(service.pid(), RLIMIT_NOFILE, nullptr, &limit) == 0);
    rlimit none{0, limit.rlim_max};
    while (std::filesystem::exists(std::filesystem::symlink_status(
        fmt::format("/proc/{}/fd/{}", service.pid(), none.rlim_cur))))
        ++none.rlim_cur;
    REQUIRE(::prlimit(service.pid(), RLIMIT_NOFILE, &none, nullptr) == 0);
    const Pipe pipe;
    const int streams[] = {pipe.read_end.get(), pipe.write_end.get(), pipe.write_end.get()};
    const auto body = FieldWriter().text("probe").bytes();
    client.send(ServiceKind::run, 5, body, streams);
    ServiceMessage answer;
    REQUIRE(client.receive(answer) == 0);
    CHECK(answer.kind == ServiceKind::refused);
    CHECK(answer.id == 5);
    CHECK(error_of(answer) == EMFILE);
    REQUIRE(::prlimit(service.pid(), RLIMIT_NOFILE, &limit, nullptr) == 0);
    CHECK(lease_one(client, 6).kind == ServiceKind::leased);
}

TEST_CASE("Out of descriptors it says so to the client, and serves on when some are free") {
    Settings settings;
    settings.descriptors = kFewDescriptors;
    TestService service(std::move(settings));
    REQUIRE(service.is_ready());
    std::vector<ServiceMessage> held;
    {
        RawClient client(service.socket());
        for (std::uint64_t request = 1; request <= kFewDescriptors; ++request) {
            held.push_back(lease_one(client, request));
            if (held.back().kind != ServiceKind::leased) break;
        }
        REQUIRE(held.back().kind == ServiceKind::refused);
        CHECK(error_of(held.back()) == EMFILE);
    }
    held.clear();
    // Nothing is left of it: no zombie either, once those that are about to end have been reaped,
    // which gives their descriptors back.
    const auto is_settled = [&] {
        const auto children = children_of(service.pid());
        return children.size() <= 9 && std::all_of(children.begin(), children.end(), is_running);
    };
    bool settles = is_settled();
    for (int tries = 0; tries < 2000 && !settles; ++tries) {
        ::poll(nullptr, 0, 5);
        settles = is_settled();
    }
    CHECK(settles);
    CHECK(spawns_with_few_descriptors(service) == 7);
}

TEST_CASE("With no descriptor free connections wait, and are served later") {
    Settings settings;
    settings.descriptors = kFewDescriptors;
    TestService service(std::move(settings));
    std::vector<RawClient> idle;
    // Connecting needs nothing of the daemon but its backlog.
    for (unsigned long i = 0; i < kFewDescriptors; ++i) idle.emplace_back(service.socket(), false);
    CHECK(service.has_logged("no descriptor is free for another client"));
    idle.clear();
    CHECK(spawns_with_few_descriptors(service) == 7);
}

TEST_CASE("A template whose program is not there is refused with that") {
    Settings settings;
    settings.templates["lost"] = "program = [\"/no/such/program\"]\n";
    TestService service(std::move(settings));
    RawClient client(service.socket());
    client.send(ServiceKind::find, 5, FieldWriter().text("lost").bytes());
    ServiceMessage refused;
    REQUIRE(client.receive(ServiceKind::refused, refused) == 0);
    CHECK(text_of_refusal(refused).find("/no/such/program") != std::string::npos);
}

TEST_CASE("A template that does not start fails its spawns at once with its last lines") {
    Settings settings;
    settings.templates["sick"] = probe_definition("", {"die"});
    TestService service(std::move(settings));
    RawClient client(service.socket());
    for (std::uint64_t request = 1; request <= 50; ++request) {
        const ServiceMessage refused = lease_one(client, request, "sick");
        REQUIRE(refused.kind == ServiceKind::refused);
        REQUIRE(text_of_refusal(refused).find("no table today") != std::string::npos);
    }
    // It has been started once, or a few times if this took seconds; not with each.
    const std::string log = service.log();
    int starts = 0;
    for (std::size_t at = log.find("no table today"); at != std::string::npos;
         at = log.find("no table today", at + 1))
        ++starts;
    CHECK(starts < 5);
    client.send(ServiceKind::manage, 60, FieldWriter().text("list").text("").bytes());
    ServiceMessage list;
    REQUIRE(client.receive(ServiceKind::managed, list) == 0);
    const auto json = nlohmann::json::parse(FieldReader(list.body).text());
    for (const auto& entry : json.at("templates"))
        if (entry.at("name") == "sick") CHECK(entry.at("state") == "failing");
    CHECK(spawns_in(service) == 7);
}

TEST_CASE(
    "Who waits for a template that is stopped is told, and one that is reloaded serves them") {
    Settings settings;
    settings.templates["slow"] = probe_definition("", {"hang"});
    TestService service(std::move(settings));
    RawClient client(service.socket());
    const auto manage = [&](std::uint64_t id, const char* verb, const char* name) {
        client.send(ServiceKind::manage, id, FieldWriter().text(verb).text(name).bytes());
    };
    client.send(ServiceKind::lease, 1, lease_body(1, kLeaseMayWait, "slow"));
    manage(2, "stop", "slow");
    ServiceMessage refused;
    REQUIRE(client.receive(ServiceKind::refused, refused) == 0);
    CHECK(refused.id == 1);
    CHECK(error_of(refused) == ESHUTDOWN);
    client.send(ServiceKind::lease, 3, lease_body());
    manage(4, "reload", "probe");
    ServiceMessage leased;
    REQUIRE(client.receive(ServiceKind::leased, leased) == 0);
    CHECK(leased.id == 3);
}

TEST_CASE("What a client asks behind a reload is answered by the service as it is then") {
    TestService service;
    RawClient client(service.socket());
    service.files().write("config/templates.d/new.toml", probe_definition());
    ::kill(service.pid(), SIGSTOP);  // so that it finds both at once
    client.send(ServiceKind::manage, 1, FieldWriter().text("reload").text("").bytes());
    client.send(ServiceKind::manage, 2, FieldWriter().text("list").text("").bytes());
    ::kill(service.pid(), SIGCONT);
    ServiceMessage answer;
    do REQUIRE(client.receive(ServiceKind::managed, answer) == 0);
    while (answer.id != 2);
    CHECK(FieldReader(answer.body).text().find("\"new\"") != std::string::npos);
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

TEST_CASE("A template that nobody uses ends, and starts again for the next") {
    Settings settings;
    settings.templates["probe"] = probe_definition("idle_timeout = \"100ms\"\n");
    TestService service(std::move(settings));
    CHECK(spawns_in(service) == 7);
    CHECK(service.has_logged("nobody has spawned from this template"));
    for (int tries = 0; tries < 2000 && !children_of(service.pid()).empty(); ++tries)
        ::poll(nullptr, 0, 5);
    CHECK(children_of(service.pid()).empty());
    CHECK(spawns_in(service) == 7);
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
