// The spawn record, honoured the same by every backend: each request is served cold, warm by a fork
// on command and warm by a hand-off, and what the child sees of itself is compared.
#include <fcntl.h>
#include <sched.h>
#include <signal.h>
#include <sys/resource.h>
#include <sys/stat.h>
#include <sys/wait.h>

#include <cstdlib>
#include <functional>
#include <nlohmann/json.hpp>

#include "support/catch.hpp"
#include "support/processes.hpp"

using Json = nlohmann::json;

namespace {

using Change = std::function<void(ProbeRequest&)>;

Json view_by(warmfork::Template& table, warmfork_backend backend, const Change& change) {
    ProbeRequest request({"view", "an argument", ""});
    request.request.backend = backend;
    change(request);
    Pipe output;
    request.put_output_on(output);
    warmfork::Process child = table.spawn(request.get());
    const std::string text = output.read_all();
    REQUIRE(child.wait() == 0);
    REQUIRE(child.backend() == backend);
    return Json::parse(text);
}

/// The cold view; both warm ones are equal to it.
Json same_by_all(const Change& change) {
    warmfork::Template forking = probe_template(0);
    warmfork::Template handing_off = probe_template(1);
    handing_off.wait_parked(1);
    const Json cold = view_by(forking, WARMFORK_BACKEND_COLD, change);
    const Json forked = view_by(forking, WARMFORK_BACKEND_WARM, change);
    const Json handed_off = view_by(handing_off, WARMFORK_BACKEND_WARM, change);
    CHECK(cold == forked);
    CHECK(cold == handed_off);
    // Where the environment wants a variant, that has no spare yet.
    CHECK(handing_off.counts().handed_off + handing_off.counts().forked == 1);
    CHECK(forking.counts().forked == 1);
    return cold;
}

constexpr std::uint64_t bit(int signal) {
    return std::uint64_t{1} << (signal - 1);
}

}  // namespace

TEST_CASE("A plain request gives the same child by every backend") {
    const Json view = same_by_all([](ProbeRequest&) {});
    CHECK(view["parent"] == ::getpid());
    CHECK(view["arguments"][1] == "view");
    CHECK(view["comm"] == "warmfork-probe\n");
    CHECK(view["descriptors"].size() == 3);
    CHECK(view["group"] == ::getpgrp());
    CHECK(view["is_leaked"] == false);
}

TEST_CASE("Environment: replaced") {
    std::vector<std::string> strings{"ONE=1", "EMPTY=", "PATH=/bin"};
    // A variant is started with it, and a program with a sanitizer needs this.
    if (const char* value = std::getenv("ASAN_OPTIONS"))
        strings.push_back(std::string("ASAN_OPTIONS=") + value);
    std::vector<const char*> environment;
    std::string block;
    for (const std::string& string : strings) {
        environment.push_back(string.c_str());
        block += string + '\0';
    }
    environment.push_back(nullptr);
    const Json view = same_by_all(
        [&](ProbeRequest& request) { request.request.environment = environment.data(); });
    CHECK(view["environment"] == Json(strings));
    CHECK(view["environ"].get<std::string>() == block);
}

TEST_CASE("Environment: changed") {
    ::setenv("WF_REMOVED", "1", 1);
    const char* const changes[] = {"WF_ADDED=2", "WF_REMOVED", nullptr};
    const Json view =
        same_by_all([&](ProbeRequest& request) { request.request.environment_changes = changes; });
    ::unsetenv("WF_REMOVED");
    const std::string text = view["environ"];
    CHECK(text.find("WF_ADDED=2") != std::string::npos);
    CHECK(text.find("WF_REMOVED") == std::string::npos);
}

TEST_CASE("Environment: the owner's of this moment, not of the template's start") {
    warmfork::Template table = probe_template(1);
    table.wait_parked(1);
    ::setenv("WF_LATER", "1", 1);
    const std::string text = Json::parse(output_of(table, {"view"}))["environ"];
    ::unsetenv("WF_LATER");
    CHECK(text.find("WF_LATER=1") != std::string::npos);
    const std::string after = Json::parse(output_of(table, {"view"}))["environ"];
    CHECK(after.find("WF_LATER") == std::string::npos);
}

TEST_CASE("Directory") {
    const Json view =
        same_by_all([](ProbeRequest& request) { request.request.directory = "/usr"; });
    CHECK(view["directory"] == "/usr");
}

TEST_CASE("Descriptors: any number, nothing else", "[numbers]") {
    const Json view = same_by_all([](ProbeRequest& request) {
        request.descriptors = {{0, 17}, {2, 3}, {0, 100}};
    });
    CHECK(view["descriptors"].size() == 6);
}

TEST_CASE("Descriptors: standard ones closed") {
    const Json view = same_by_all([](ProbeRequest& request) {
        request.descriptors = {{-1, 0}, {-1, 2}};
    });
    CHECK(view["descriptors"] == Json({{1, 0}}));
}

TEST_CASE(
    "Descriptors: a standard number that is close-on-exec in the owner is closed in the child") {
    ::fcntl(0, F_SETFD, FD_CLOEXEC);
    const Json view = same_by_all([](ProbeRequest&) {});
    ::fcntl(0, F_SETFD, 0);
    CHECK(view["descriptors"] == Json({{1, 0}, {2, 0}}));
}

TEST_CASE("Descriptors: as many as a record can hold", "[numbers]") {
    const Json view = same_by_all([](ProbeRequest& request) {
        for (int number = 3; number < 250; ++number) request.descriptors.push_back({0, number});
    });
    CHECK(view["descriptors"].size() == 250);
}

TEST_CASE("A new session") {
    const Json view =
        same_by_all([](ProbeRequest& request) { request.request.flags |= WARMFORK_NEW_SESSION; });
    CHECK(view["session"] == -1);
}

TEST_CASE("A process group of its own") {
    const Json view =
        same_by_all([](ProbeRequest& request) { request.request.flags |= WARMFORK_PROCESS_GROUP; });
    CHECK(view["group"] == -1);
}

TEST_CASE("Signals: a mask, ignored ones, default ones") {
    ::signal(SIGUSR1, SIG_IGN);
    const Json view = same_by_all([](ProbeRequest& request) {
        request.request.flags |=
            WARMFORK_SIGNAL_MASK | WARMFORK_SIGNALS_IGNORED | WARMFORK_SIGNALS_DEFAULT;
        request.request.signal_mask = bit(SIGTERM) | bit(SIGRTMIN + 3);
        request.request.signals_ignored = bit(SIGHUP) | bit(SIGRTMAX);
        request.request.signals_default = bit(SIGUSR1);
    });
    ::signal(SIGUSR1, SIG_DFL);
    CHECK(view["blocked"] == Json({SIGTERM, SIGRTMIN + 3}));
    CHECK(view["dispositions"] == Json({{"1", "ignored"}, {"64", "ignored"}}));
}

TEST_CASE("Signals: what the owner ignores and blocks is inherited, its handlers are not") {
    ::signal(SIGUSR2, SIG_IGN);
    ::signal(SIGUSR1, [](int) {});
    sigset_t blocked, before;
    ::sigemptyset(&blocked);
    ::sigaddset(&blocked, SIGALRM);
    ::sigprocmask(SIG_BLOCK, &blocked, &before);
    const Json view = same_by_all([](ProbeRequest&) {});
    ::sigprocmask(SIG_SETMASK, &before, nullptr);
    ::signal(SIGUSR1, SIG_DFL);
    ::signal(SIGUSR2, SIG_DFL);
    CHECK(view["blocked"] == Json({SIGALRM}));
    CHECK(view["dispositions"] == Json({{std::to_string(SIGUSR2), "ignored"}}));
}

TEST_CASE("Limits, umask, nice, affinity", "[numbers]") {
    rlimit files{};
    ::getrlimit(RLIMIT_NOFILE, &files);
    const warmfork_limit limits[] = {{RLIMIT_NOFILE, 400, files.rlim_max}, {RLIMIT_CORE, 0, 0}};
    cpu_set_t first;
    ::sched_getaffinity(0, sizeof first, &first);
    for (int cpu = 0, seen = 0; cpu < CPU_SETSIZE; ++cpu)
        if (CPU_ISSET(cpu, &first) && seen++ > 0) CPU_CLR(cpu, &first);
    const Json view = same_by_all([&](ProbeRequest& request) {
        request.request.flags |= WARMFORK_UMASK | WARMFORK_NICE;
        request.request.file_mode_mask = 0157;
        request.request.nice = 7;
        request.request.limits = limits;
        request.request.limit_count = 2;
        request.request.affinity = &first;
        request.request.affinity_size = sizeof first;
    });
    CHECK(view["umask"] == 0157);
    CHECK(view["nice"] == 7);
    CHECK(view["limits"][RLIMIT_NOFILE][0] == 400);
    CHECK(view["limits"][RLIMIT_CORE] == Json({0, 0}));
    CHECK(view["processors"] == 1);
}

TEST_CASE("Statuses are exact, whoever made the child") {
    warmfork::Template table = probe_template(1);
    for (warmfork_backend backend : {WARMFORK_BACKEND_COLD, WARMFORK_BACKEND_WARM}) {
        for (int status : {0, 1, 42, 255}) {
            ProbeRequest request({"exit", std::to_string(status)});
            request.request.backend = backend;
            CHECK(table.spawn(request.get()).wait() == status << 8);
        }
        for (int signal : {SIGKILL, SIGTERM, SIGUSR1}) {
            ProbeRequest request({"raise", std::to_string(signal)});
            request.request.backend = backend;
            CHECK(table.spawn(request.get()).wait() == signal);
        }
    }
}

TEST_CASE("Failures before user code are the same: stage and errno, and no process") {
    warmfork::Template table = probe_template(1);
    for (warmfork_backend backend : {WARMFORK_BACKEND_COLD, WARMFORK_BACKEND_WARM}) {
        const auto failure_of = [&](const Change& change) {
            ProbeRequest request({"exit", "0"});
            request.request.backend = backend;
            change(request);
            try {
                table.spawn(request.get()).wait();
            } catch (const warmfork::Error& error) {
                return std::pair(error.stage(), error.error_number());
            }
            return std::pair(WARMFORK_STAGE_NONE, 0);
        };
        CHECK(failure_of([](ProbeRequest& r) { r.request.directory = "/no/such/place"; }) ==
              std::pair(WARMFORK_STAGE_DIRECTORY, ENOENT));
        CHECK(failure_of([](ProbeRequest& r) { r.request.directory = "/etc/passwd"; }) ==
              std::pair(WARMFORK_STAGE_DIRECTORY, ENOTDIR));
        CHECK(failure_of([](ProbeRequest& r) {
                  r.descriptors.push_back({4000, 5});
              }) == std::pair(WARMFORK_STAGE_DESCRIPTORS, EBADF));
        CHECK(failure_of([](ProbeRequest& r) {
                  r.request.flags |= WARMFORK_PROCESS_GROUP;
                  r.request.process_group = 0x3ffffe;
              }) == std::pair(WARMFORK_STAGE_SESSION, EPERM));
        const std::string large(2u << 20, 'x');
        CHECK(failure_of([&](ProbeRequest& r) {
                  r.pointers.insert(r.pointers.end() - 1, large.c_str());
                  r.request.arguments = r.pointers.data();
              }) == std::pair(backend == WARMFORK_BACKEND_COLD ? WARMFORK_STAGE_EXEC
                                                               : WARMFORK_STAGE_RECORD,
                              E2BIG));
    }
}

TEST_CASE("Large records arrive whole by every way") {
    for (std::size_t size : {60'000u, 70'000u, 131'000u}) {
        const std::string large(size, 'x');
        const Json view = same_by_all([&](ProbeRequest& request) {
            request.pointers.insert(request.pointers.end() - 1, large.c_str());
            request.request.arguments = request.pointers.data();
        });
        CHECK(view["arguments"].back().get<std::string>().size() == size);
    }
}

TEST_CASE("A payload reaches a native template's child, up to two megabytes") {
    for (int spares : {0, 1}) {
        warmfork::Template table = probe_template(spares);
        for (std::size_t size : {0u, 10u, 65'536u, 2'000'000u}) {
            ProbeRequest request({"payload"});
            const std::string payload(size, 'p');
            request.request.payload = payload.data();
            request.request.payload_size = payload.size();
            CHECK(output_of(table, request) == payload);
        }
    }
}
