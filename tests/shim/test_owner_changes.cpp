// A cold child inherits the owner as it is now: so does a warm one, or it is cold with the reason.
#include <fcntl.h>
#include <linux/filter.h>
#include <linux/seccomp.h>
#include <sched.h>
#include <signal.h>
#include <sys/prctl.h>
#include <sys/resource.h>
#include <sys/stat.h>
#include <sys/wait.h>
#include <unistd.h>

#include <cstdio>
#include <functional>
#include <iterator>
#include <nlohmann/json.hpp>
#include <thread>

#include "support/catch.hpp"
#include "support/processes.hpp"

using Json = nlohmann::json;

namespace {

/// Runs the test's body in an owner of its own, because it changes that owner for good. The body
/// returns an empty text, or what is wrong.
std::string in_an_owner(const std::function<std::string()>& body) {
    Pipe answer;
    const pid_t pid = ::fork();
    if (pid == 0) {
        std::string text;
        try {
            text = body();
        } catch (const std::exception& error) {
            text = error.what();
        }
        if (::write(answer.write_end.get(), text.data(), text.size()) < 0) ::_exit(2);
        ::_exit(0);
    }
    std::string text = answer.read_all();
    int status;
    ::waitpid(pid, &status, 0);
    return status == 0 ? text : "the owner ended with " + std::to_string(status) + ": " + text;
}

/// Changes the owner, and then compares what a warm and a cold child see.
std::string compare_after(const std::function<void()>& change) {
    return in_an_owner([&]() -> std::string {
        warmfork::Template table = probe_template(1);
        table.wait_parked(1);
        change();
        ProbeRequest warm({"view"}), cold({"view"});
        cold.request.backend = WARMFORK_BACKEND_COLD;
        const Json warm_view = Json::parse(output_of(table, warm));
        const Json cold_view = Json::parse(output_of(table, cold));
        if (warm_view == cold_view && table.counts().handed_off == 1) return {};
        return Json::diff(cold_view, warm_view).dump() + " by " +
               std::to_string(table.counts().handed_off) + " hand-offs";
    });
}

/// Changes the owner in a way that a child cannot follow: cold, with the reason, and warm again
/// once a new template has started.
std::string cold_after(const std::function<void()>& change) {
    return in_an_owner([&]() -> std::string {
        warmfork::Template table = probe_template(1, {}, WARMFORK_BACKEND_AUTO);
        table.wait_parked(1);
        change();
        ProbeRequest request({"exit", "0"});
        {
            warmfork::Process child = table.spawn(request.get());
            child.wait();
            if (child.reason() != WARMFORK_REASON_OWNER_CHANGED)
                return "served " + std::string(child.backend_name()) + ": " + child.reason_text();
        }
        table.wait_parked(1);
        warmfork::Process child = table.spawn(request.get());
        child.wait();
        return child.backend() == WARMFORK_BACKEND_WARM ? "" : "still cold: " + child.reason_text();
    });
}

void install_seccomp_filter() {
    sock_filter allow_all[] = {{BPF_RET | BPF_K, 0, 0, SECCOMP_RET_ALLOW}};
    const sock_fprog program{1, allow_all};
    ::prctl(PR_SET_NO_NEW_PRIVS, 1, 0, 0, 0);
    ::prctl(PR_SET_SECCOMP, SECCOMP_MODE_FILTER, &program);
}

}  // namespace

TEST_CASE("A warm child follows its owner's umask") {
    CHECK(compare_after([] { ::umask(0123); }) == "");
}
TEST_CASE("A warm child follows its owner's directory") {
    CHECK(compare_after([] { REQUIRE(::chdir("/usr/lib") == 0); }) == "");
}
TEST_CASE("A warm child follows its owner's signals") {
    CHECK(compare_after([] {
              ::signal(SIGHUP, SIG_IGN);
              sigset_t set;
              ::sigemptyset(&set);
              ::sigaddset(&set, SIGUSR1);
              ::sigprocmask(SIG_BLOCK, &set, nullptr);
          }) == "");
}
TEST_CASE("A warm child follows its owner's limits downwards") {
    CHECK(compare_after([] {
              const rlimit limit{300, 300};
              ::setrlimit(RLIMIT_NOFILE, &limit);
          }) == "");
}
TEST_CASE("A warm child follows its owner's nice value upwards") {
    CHECK(compare_after([] { ::nice(2); }) == "");
}
TEST_CASE("A warm child follows its owner's affinity") {
    CHECK(compare_after([] {
              cpu_set_t set;
              ::sched_getaffinity(0, sizeof set, &set);
              for (int cpu = 0, seen = 0; cpu < CPU_SETSIZE; ++cpu)
                  if (CPU_ISSET(cpu, &set) && seen++ > 0) CPU_CLR(cpu, &set);
              ::sched_setaffinity(0, sizeof set, &set);
          }) == "");
}
TEST_CASE("A warm child follows its owner's no_new_privs") {
    CHECK(compare_after([] { ::prctl(PR_SET_NO_NEW_PRIVS, 1, 0, 0, 0); }) == "");
}
TEST_CASE("A warm child follows its owner's oom_score_adj upwards") {
    CHECK(compare_after([] {
              const int file = ::open("/proc/self/oom_score_adj", O_WRONLY | O_CLOEXEC);
              REQUIRE(::write(file, "500", 3) == 3);
              ::close(file);
          }) == "");
}
TEST_CASE("A warm child follows its owner into another process group") {
    CHECK(compare_after([] { ::setpgid(0, 0); }) == "");
}

TEST_CASE("A seccomp filter that the owner has installed since makes it cold") {
    CHECK(cold_after(install_seccomp_filter) == "");
}
TEST_CASE("Another session makes it cold") {
    CHECK(cold_after([] { ::setsid(); }) == "");
}
TEST_CASE("A limit that only exec honours makes it cold") {
    CHECK(cold_after([] {
              const rlimit limit{1 << 20, RLIM_INFINITY};
              ::setrlimit(RLIMIT_STACK, &limit);
          }) == "");
}
TEST_CASE("Other ids make it cold") {
    if (::geteuid() != 0) return;
    CHECK(cold_after([] { REQUIRE(::setgid(12345) == 0); }) == "");
}
TEST_CASE("Another root directory or mount namespace makes it cold") {
    if (::geteuid() != 0 || in_an_owner([] {
                                return ::unshare(CLONE_NEWNS) == 0 ? std::string()
                                                                   : std::string("no");
                            }) != "")
        return;
    CHECK(cold_after([] { REQUIRE(::unshare(CLONE_NEWNS) == 0); }) == "");
}

TEST_CASE(
    "Threads that differ do not replace each other's template: the other's children are cold") {
    for (const auto& change :
         std::vector<std::function<void()>>{[] { ::prctl(PR_SET_TIMERSLACK, 77'000, 0, 0, 0); },
                                            [] {
                                                const sched_param none{};
                                                ::sched_setscheduler(0, SCHED_BATCH, &none);
                                            },
                                            install_seccomp_filter})
        CHECK(in_an_owner([&]() -> std::string {
                  warmfork::Template table = probe_template(1, {}, WARMFORK_BACKEND_AUTO);
                  table.wait_parked(1);
                  ProbeRequest request({"exit", "0"});
                  const auto reason_of_spawn = [&] {
                      warmfork::Process child = table.spawn(request.get());
                      child.wait();
                      return child.reason();
                  };
                  for (int turn = 0; turn < 3; ++turn) {
                      warmfork_reason reason{};
                      std::thread([&] {
                          change();
                          reason = reason_of_spawn();
                      }).join();
                      if (reason != WARMFORK_REASON_OWNER_CHANGED) return "not cold";
                      if (reason_of_spawn() != WARMFORK_REASON_NONE) return "not warm";
                  }
                  return table.counts().template_starts == 1 ? "" : "started again";
              }) == "");
}

TEST_CASE("An owner that changes all the time replaces its template a bounded number of times") {
    CHECK(in_an_owner([]() -> std::string {
              warmfork::Template table = probe_template(1, {}, WARMFORK_BACKEND_AUTO);
              table.wait_parked(1);
              ProbeRequest request({"exit", "0"});
              for (unsigned turn = 0; turn < 100; ++turn) {
                  ::prctl(PR_SET_TIMERSLACK, 60'000 + turn, 0, 0, 0);
                  table.spawn(request.get()).wait();
              }
              const auto starts = table.counts().template_starts;
              return starts < 15 ? "" : std::to_string(starts) + " starts";
          }) == "");
}

TEST_CASE("With backend warm the spawn waits for a template that fits the owner") {
    CHECK(in_an_owner([]() -> std::string {
              warmfork::Template table = probe_template(1);
              table.wait_parked(1);
              install_seccomp_filter();
              output_of(table, {"exit", "0"});
              return table.counts().template_starts == 2 ? "" : "not started again";
          }) == "");
}
