// Whom the daemon lets in, and what it allows them.
#include <fcntl.h>
#include <fmt/format.h>
#include <poll.h>
#include <signal.h>
#include <sys/resource.h>
#include <sys/socket.h>
#include <sys/stat.h>
#include <sys/wait.h>
#include <unistd.h>

#include <algorithm>
#include <filesystem>

#include "service/requests.hpp"
#include "support/catch.hpp"
#include "support/service.hpp"

using namespace warmfork;
using Settings = TestService::Settings;

namespace {

constexpr uid_t kNobody = 65534;

constexpr unsigned long kFewDescriptors = 96;

/// By a client that may have no more than a service with this limit: it would be served cold.
int spawns_with_few_descriptors(const TestService& service) {
    return as_client(service, [] {
        const rlimit limit{kFewDescriptors, kFewDescriptors};
        return ::setrlimit(RLIMIT_NOFILE, &limit) < 0 ? 98 : spawn_once();
    });
}

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

}  // namespace

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

#ifndef __SANITIZE_ADDRESS__  // whose library has to come before all others
TEST_CASE("A fixed command is not started where the state of the service cannot be read") {
    const TemporaryDirectory switches;
    Settings settings;
    settings.templates["fixed"] =
        probe_definition(fmt::format("command = [\"{}\", \"exit\", \"5\"]\n", WARMFORK_PROBE));
    settings.environment = {"LD_PRELOAD=" TEST_FAILING_CALLS_LIBRARY,
                            "TEST_FAILING_GETSID=" + switches.path() + "/fails"};
    TestService service(std::move(settings));
    REQUIRE(service.is_ready());
    RawClient client(service.socket());
    const Descriptor null(::open("/dev/null", O_RDWR | O_CLOEXEC));
    const int standard[] = {null.get(), null.get(), null.get()};
    const auto run = [&](std::uint64_t request) {
        client.send(ServiceKind::run, request,
                    FieldWriter().text("fixed").text(client.sight()).bytes(), standard);
    };
    run(1);
    ServiceMessage answer;
    REQUIRE(client.receive(ServiceKind::exited, answer) == 0);
    CHECK(WEXITSTATUS(read_exit_report(answer.body)->status) == 5);
    switches.write("fails", "");
    run(2);
    REQUIRE(client.receive(ServiceKind::refused, answer) == 0);
    CHECK(error_of(answer) == ENOTSUP);
    CHECK(text_of_refusal(answer).find("cannot be read: the session") != std::string::npos);
    std::filesystem::remove(switches.path() + "/fails");
    run(3);
    REQUIRE(client.receive(ServiceKind::exited, answer) == 0);
}
#endif

TEST_CASE("A fixed command that does not start in time is given up, also across reloads",
          "[slow]") {
    Settings settings;
    settings.templates["fixed"] = probe_definition(
        fmt::format("command = [\"{}\", \"exit\", \"5\"]\nspares = 1\n", WARMFORK_PROBE));
    TestService service(std::move(settings));
    RawClient client(service.socket());
    const Descriptor null(::open("/dev/null", O_RDWR | O_CLOEXEC));
    const int standard[] = {null.get(), null.get(), null.get()};
    client.send(ServiceKind::run, 1, FieldWriter().text("fixed").text(client.sight()).bytes(),
                standard);
    ServiceMessage answer;
    REQUIRE(client.receive(ServiceKind::exited, answer) == 0);
    for (int tries = 0; tries < 60'000 && parked_spares(client, "fixed") == 0; ++tries)
        ::poll(nullptr, 0, 1);
    pid_t spare = 0;
    for (const pid_t child : children_of(service.pid()))
        if (name_of(child) == "warmfork-spare") spare = child;
    REQUIRE(spare != 0);
    const Descriptor pidfd = open_pidfd(spare);
    REQUIRE(::kill(spare, SIGSTOP) == 0);
    client.send(ServiceKind::run, 2, FieldWriter().text("fixed").text(client.sight()).bytes(),
                standard);
    pollfd told{client.socket(), POLLIN, 0};
    for (int reloads = 0; reloads < 120 && ::poll(&told, 1, 500) == 0; ++reloads) {
        service.signal(SIGHUP);
        REQUIRE(service.has_said("READY=1"));
    }
    REQUIRE(told.revents != 0);
    REQUIRE(client.receive(ServiceKind::refused, answer) == 0);
    CHECK(error_of(answer) == ETIMEDOUT);
    CHECK(text_of_refusal(answer).find("has not started after") != std::string::npos);
    CHECK(has_ended(pidfd));
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

// Limits.

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
