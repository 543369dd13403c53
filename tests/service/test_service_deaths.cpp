// kill -9 at random points of client, daemon, template, spare and child, and reloads under load: no
// status is lost or given twice, and nothing is left. WARMFORK_TEST_ROUNDS says how many rounds,
// WARMFORK_TEST_SEED which ones.
#include <fmt/format.h>
#include <poll.h>
#include <signal.h>
#include <sys/prctl.h>
#include <sys/wait.h>
#include <unistd.h>

#include <algorithm>
#include <chrono>
#include <cstdlib>
#include <filesystem>
#include <random>

#include "service/requests.hpp"
#include "support/catch.hpp"
#include "support/service.hpp"

using namespace warmfork;
namespace fs = std::filesystem;

namespace {

using Clock = std::chrono::steady_clock;

int number_of(const char* variable, int otherwise) {
    const char* text = std::getenv(variable);
    return text ? std::atoi(text) : otherwise;
}

/// Who inherits the children of a daemon that is killed, and the keepers.
class Subreaper {
  public:
    Subreaper() { ::prctl(PR_SET_CHILD_SUBREAPER, 1, 0, 0, 0); }
    ~Subreaper() { ::prctl(PR_SET_CHILD_SUBREAPER, 0, 0, 0, 0); }
    /// Reaps what has ended of all but these. Returns those that run.
    std::vector<int> reap(const std::vector<int>& known) const {
        std::vector<int> running;
        for (int child : children_of(::getpid())) {
            if (std::find(known.begin(), known.end(), child) != known.end()) continue;
            if (::waitpid(child, nullptr, WNOHANG) == 0) running.push_back(child);
        }
        return running;
    }
};

/// Spawns until it gets its cue; each child ends in a way of its own. Says what it finds wrong.
/// Returns 0, or 1 if something was.
int spawn_until_cue(bool may_fail, bool may_be_killed) {
    warmfork_template* table = nullptr;
    bool is_well = true;
    const auto complain = [&](const std::string& text) {
        say(text);
        is_well = false;
    };
    std::uint64_t spawned = 0, orphaned = 0, failed = 0;
    warmfork_failure failure{};
    while (warmfork_template_connect("probe", WARMFORK_BACKEND_WARM, &table, &failure))
        if (!may_fail) return 2;
    say("ready");
    while (!has_cue()) {
        const int code = static_cast<int>(spawned % 200);
        ProbeRequest request({"exit", fmt::format("{}", code)});
        warmfork_process* child = nullptr;
        if (warmfork_spawn(table, &request.get(), &child, &failure)) {
            ++failed;
            if (!may_fail) complain(fmt::format("failed: {}", failure.text));
            continue;
        }
        ++spawned;
        int status = -1;
        const int error = warmfork_process_wait(child, 0, &status, nullptr);
        const bool was_killed = may_be_killed && WIFSIGNALED(status) && WTERMSIG(status) == SIGKILL;
        if (error == -EOWNERDEAD && may_fail)
            ++orphaned;
        else if (error)
            complain(fmt::format("no status: {}", -error));
        else if ((!WIFEXITED(status) || WEXITSTATUS(status) != code) && !was_killed)
            complain(fmt::format("status {:#x} instead of exit {}", status, code));
        int again = -1;
        if (!error && (warmfork_process_wait(child, 0, &again, nullptr) || again != status))
            complain(fmt::format("status {:#x}, and then {:#x}", status, again));
        warmfork_process_free(child);
    }
    warmfork_template_close(table);
    say(fmt::format("spawned {} orphaned {} failed {}", spawned, orphaned, failed));
    return is_well ? 0 : 1;
}

TestService::Settings passed_socket() {
    TestService::Settings settings;
    settings.has_passed_socket = true;  // as systemd's: it outlives the daemon
    return settings;
}

/// A template that was killed while it preloaded fails what is spawned until it is tried again.
bool spawns_in_the_end(const TestService& service) {
    return as_client(service, [] {
               Template table = Template::connect("probe", WARMFORK_BACKEND_WARM);
               const auto deadline = Clock::now() + std::chrono::seconds(20);
               while (Clock::now() < deadline) {
                   try {
                       return WEXITSTATUS(table.spawn({WARMFORK_PROBE, "exit", "7"}).wait());
                   } catch (const Error&) {
                       ::poll(nullptr, 0, 20);
                   }
               }
               return 98;
           }) == 7;
}

}  // namespace

TEST_CASE("Deaths in every order lose no status and leave nothing", "[many]") {
    const int rounds = number_of("WARMFORK_TEST_ROUNDS", 25);
    const auto seed = static_cast<unsigned>(number_of("WARMFORK_TEST_SEED", 1));
    std::uint64_t spawned = 0, orphaned = 0, failed = 0;
    {
        Subreaper subreaper;
        TestService service(passed_socket());
        for (int round = 0; round < rounds; ++round) {
            std::mt19937 chance(seed * 100'000 + static_cast<unsigned>(round));
            std::vector<std::string> victims{"client", "daemon", "template", "spare", "child"};
            std::shuffle(victims.begin(), victims.end(), chance);
            victims.resize(1 + chance() % victims.size());
            const bool kills_daemon =
                std::find(victims.begin(), victims.end(), "daemon") != victims.end();
            INFO("round " << round << ": " << fmt::format("{}", fmt::join(victims, ", ")));
            ClientProcess witness(service, [] { return spawn_until_cue(true, true); });
            ClientProcess victim(service, [] { return spawn_until_cue(true, true); });
            REQUIRE(witness.next_line() == "ready");
            REQUIRE(victim.next_line() == "ready");
            const pid_t daemon = service.pid();
            for (const std::string& name : victims) {
                spin(static_cast<int>(chance() % 12'000'000));
                if (name == "client") victim.kill();
                if (name == "daemon") service.kill();
                if (name != "template" && name != "spare" && name != "child") continue;
                // Those of a daemon that was killed have been inherited.
                std::vector<int> candidates;
                for (int parent : {daemon, ::getpid()})
                    for (int child : children_of(parent)) {
                        const std::string title = name_of(child);
                        const bool is_spare = title == "warmfork-spare";
                        const bool is_child = title == "warmfork-probe";
                        const bool is_wanted = name == "spare" ? is_spare : is_child;
                        if (is_wanted && child != daemon && child != witness.pid() &&
                            child != victim.pid() && title != "test-service")
                            candidates.push_back(child);
                    }
                // The template is the oldest of its name.
                if (candidates.empty()) continue;
                const int chosen = name == "template" ? candidates.front()
                                                      : candidates[chance() % candidates.size()];
                ::kill(chosen, SIGKILL);
            }
            if (kills_daemon) {
                service.start();
                REQUIRE(service.is_ready());
            }
            const std::vector<int> known{service.pid(), witness.pid(), victim.pid()};
            victim.kill();
            // The witness still gets its children, and ends well.
            witness.give_cue();
            std::string last, line;
            int status = -1;
            for (int tries = 0; tries < 6000 && status < 0; ++tries) {
                subreaper.reap(known);
                status = witness.wait(5);
            }
            while (!(line = witness.next_line()).empty()) last = line;
            INFO(last);
            REQUIRE(status == 0);
            std::uint64_t numbers[3] = {};
            std::sscanf(last.c_str(), "spawned %lu orphaned %lu failed %lu", &numbers[0],
                        &numbers[1], &numbers[2]);
            spawned += numbers[0];
            orphaned += numbers[1];
            failed += numbers[2];
            REQUIRE(spawns_in_the_end(service));
            // What is left is the daemon with its template and spares, and its keeper.
            std::vector<int> strangers, left;
            const auto deadline = Clock::now() + std::chrono::seconds(60);
            do {
                strangers = subreaper.reap({service.pid()});
                std::erase_if(strangers, [](int pid) { return name_of(pid) == "warmfork-keeper"; });
                left.clear();
                int templates = 0;
                for (int child : children_of(service.pid())) {
                    const std::string title = name_of(child);
                    if (!is_running(child) || (title != "warmfork-spare" && ++templates > 1))
                        left.push_back(child);
                }
                if (strangers.empty() && left.empty()) break;
                ::poll(nullptr, 0, 5);
            } while (Clock::now() < deadline);
            for (int pid : strangers) FAIL_CHECK("left: " << pid << " " << name_of(pid));
            for (int pid : left) FAIL_CHECK("left in the daemon: " << pid << " " << name_of(pid));
            REQUIRE((strangers.empty() && left.empty()));
        }
        service.signal(SIGTERM);
        CHECK(service.wait() == 0);
        CHECK(!fs::exists(service.board()));
        // The keepers have nobody left, and end.
        const auto deadline = Clock::now() + std::chrono::seconds(60);
        while (!subreaper.reap({}).empty() && Clock::now() < deadline) ::poll(nullptr, 0, 5);
        CHECK(subreaper.reap({}).empty());
    }
    fmt::print("{} rounds: {} spawned, {} of them without a status (EOWNERDEAD), {} failed\n",
               rounds, spawned, orphaned, failed);
}

TEST_CASE("When a client and the daemon are killed at once the keeper ends the children",
          "[slow]") {
    Subreaper subreaper;
    TestService service(passed_socket());
    ClientProcess client(service, [] {
        Template table = Template::connect("probe", WARMFORK_BACKEND_WARM);
        std::vector<Process> children;
        for (const char* word : {"wait", "stubborn"}) {
            Pipe output;
            ProbeRequest request({word});
            request.put_output_on(output);
            children.push_back(table.spawn(request.get()));
            char byte;
            if (::read(output.read_end.get(), &byte, 1) != 1) return 1;
            say(fmt::format("{}", children.back().pid()));
        }
        await_cue();
        return 0;
    });
    const Descriptor one = open_pidfd(std::stoi(client.next_line()));
    const Descriptor other = open_pidfd(std::stoi(client.next_line()));
    ::kill(service.pid(), SIGSTOP);  // so that it sees nothing of the client's end
    client.kill();
    service.kill();
    CHECK(has_ended(one));
    CHECK(has_ended(other));
    const auto deadline = Clock::now() + std::chrono::seconds(60);
    while (!subreaper.reap({}).empty() && Clock::now() < deadline) ::poll(nullptr, 0, 5);
    CHECK(subreaper.reap({}).empty());
}

TEST_CASE("The children of a client outlive a daemon that was killed, and end with the client") {
    Subreaper subreaper;
    TestService service(passed_socket());
    ClientProcess client(service, [] {
        Template table = Template::connect("probe", WARMFORK_BACKEND_WARM);
        Process child = table.spawn({WARMFORK_PROBE, "wait"});
        say(fmt::format("{}", child.pid()));
        await_cue();
        return 0;
    });
    const pid_t pid = std::stoi(client.next_line());
    const Descriptor child = open_pidfd(pid);
    service.kill();
    service.start();
    CHECK(spawns_in(service) == 7);
    CHECK(is_running(pid));
    client.kill();
    CHECK(has_ended(child));
    service.signal(SIGTERM);
    service.wait();
    const auto deadline = Clock::now() + std::chrono::seconds(60);
    while (!subreaper.reap({}).empty() && Clock::now() < deadline) ::poll(nullptr, 0, 5);
    CHECK(subreaper.reap({}).empty());
}

TEST_CASE(
    "A template of the service that is stopped is replaced, and who has asked is served cold") {
    TestService::Settings settings;
    settings.templates["probe"] = probe_definition("spares = 0\n");
    TestService service(std::move(settings));
    REQUIRE(spawns_in(service) == 7);
    const std::vector<int> children = children_of(service.pid());
    REQUIRE(!children.empty());
    const Descriptor stopped = open_pidfd(children.front());
    REQUIRE(::kill(children.front(), SIGSTOP) == 0);
    CHECK(as_client(service, [] {
              Template table = Template::connect("probe");
              // Some may be parked, for whoever has just been served.
              for (int spawns = 0; spawns < 100; ++spawns) {
                  Process child = table.spawn({WARMFORK_PROBE, "exit", "7"});
                  const bool is_told = child.reason() == WARMFORK_REASON_UNRESPONSIVE;
                  if (WEXITSTATUS(child.wait()) != 7) return 1;
                  if (is_told) return 0;
              }
              return 2;
          }) == 0);
    CHECK(has_ended(stopped));
    CHECK(spawns_in_the_end(service));
}

TEST_CASE("A template that is killed is no zombie, nor are its spares, though nobody asks") {
    TestService service;
    REQUIRE(spawns_in(service) == 7);
    const std::vector<int> before = children_of(service.pid());
    REQUIRE(!before.empty());
    REQUIRE(::kill(before.front(), SIGKILL) == 0);
    std::vector<int> left;
    const auto deadline = Clock::now() + std::chrono::seconds(60);
    do {
        left = children_of(service.pid());
        std::erase_if(left, [&](int child) {
            return std::find(before.begin(), before.end(), child) == before.end();
        });
        if (left.empty()) break;
        ::poll(nullptr, 0, 5);
    } while (Clock::now() < deadline);
    CHECK(left.empty());
}

TEST_CASE("No wait begins anew when the service is reloaded over and over", "[slow]") {
    TestService::Settings settings;
    settings.templates["unending"] = probe_definition("", {"hang"});
    TestService service(std::move(settings));
    ClientProcess client(service, hold_stubborn_child);
    const Descriptor child = open_pidfd(std::stoi(client.next_line()));
    RawClient silent(service.socket(), false), asking(service.socket());
    asking.send(ServiceKind::lease, 1, lease_body(1, 0, "unending"));
    client.kill();
    // All of them wait for seconds; each is over when its descriptor is readable.
    std::vector<pollfd> waits{
        {child.get(), POLLIN, 0}, {silent.socket(), POLLIN, 0}, {asking.socket(), POLLIN, 0}};
    const auto deadline = Clock::now() + std::chrono::seconds(60);
    while (!waits.empty() && Clock::now() < deadline) {
        service.signal(SIGHUP);
        REQUIRE(service.has_said("READY=1"));
        ::poll(waits.data(), waits.size(), 500);
        std::erase_if(waits, [](const pollfd& wait) { return wait.revents != 0; });
    }
    CHECK(waits.empty());
    CHECK(silent.is_hung_up());
    ServiceMessage answer;
    REQUIRE(asking.receive(answer) == 0);
    CHECK(answer.kind == ServiceKind::refused);
}

TEST_CASE("No client notices that the daemon is reloaded over and over", "[many]") {
    const int reloads = number_of("WARMFORK_TEST_RELOADS", 10);
    TestService::Settings settings;
    settings.templates["probe"] = probe_definition("spares = 2\n");
    TestService service(std::move(settings));
    REQUIRE(spawns_in(service) == 7);
    // A reload adds what a service that has taken over keeps: so the second is the one to compare.
    const auto reload = [&] {
        service.signal(SIGHUP);
        return service.has_said("RELOADING=1") && service.has_said("READY=1");
    };
    REQUIRE(reload());
    RawClient watcher(service.socket());
    const auto rest = [&](std::size_t most) {
        for (int tries = 0; tries < 12'000; ++tries) {
            if (service.descriptors() <= most && children_of(service.pid()).size() == 3 &&
                parked_spares(watcher) == 2)
                break;
            ::poll(nullptr, 0, 5);
        }
        return service.descriptors();
    };
    REQUIRE(spawns_in(service) == 7);
    const std::size_t descriptors = rest(SIZE_MAX);
    std::vector<ClientProcess> clients;
    for (int i = 0; i < 4; ++i)
        clients.emplace_back(service, [] { return spawn_until_cue(false, false); });
    for (ClientProcess& client : clients) REQUIRE(client.next_line() == "ready");
    for (int i = 0; i < reloads; ++i) {
        REQUIRE(reload());
        ::poll(nullptr, 0, 200);  // the load goes on meanwhile
    }
    std::uint64_t all = 0;
    for (ClientProcess& client : clients) {
        client.give_cue();
        for (std::string line; !(line = client.next_line()).empty();) {
            std::uint64_t spawned = 0;
            if (std::sscanf(line.c_str(), "spawned %lu", &spawned) == 1)
                all += spawned;
            else
                FAIL_CHECK(line);
        }
        CHECK(client.wait() == 0);
    }
    CHECK(all > 0);
    CHECK(spawns_in(service) == 7);
    CHECK(rest(descriptors) <= descriptors);
    for (int child : children_of(service.pid())) CHECK(is_running(child));
    CHECK(children_of(service.pid()).size() == 3);
    fmt::print("{} reloads under load: {} spawned; {} descriptors before, {} after\n", reloads, all,
               descriptors, service.descriptors());
}
