// A cold child inherits the owner as it is now: so does a warm one, or it is cold with the reason.
#include <fcntl.h>
#include <grp.h>
#include <linux/capability.h>
#include <linux/filter.h>
#include <linux/landlock.h>
#include <linux/seccomp.h>
#include <sched.h>
#include <signal.h>
#include <sys/mount.h>
#include <sys/personality.h>
#include <sys/prctl.h>
#include <sys/resource.h>
#include <sys/stat.h>
#include <sys/syscall.h>
#include <sys/wait.h>
#include <unistd.h>

#include <cstdio>
#include <functional>
#include <iterator>
#include <map>
#include <nlohmann/json.hpp>
#include <numeric>
#include <thread>

#include "owner/owner_state.hpp"
#include "support/catch.hpp"
#include "support/processes.hpp"

using Json = nlohmann::json;

namespace {

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

/// Does the change succeed here, in an owner of its own? A container, and an older kernel, know
/// less.
bool is_possible(const std::function<bool()>& change) {
    return in_an_owner([&] { return std::string(change() ? "" : "no"); }) == "";
}

/// Confines the calling thread by Landlock, in something that nothing here does.
bool confine() {
    const std::uint64_t handled = LANDLOCK_ACCESS_FS_MAKE_BLOCK;  // the struct of the first version
    const auto rules =
        static_cast<int>(::syscall(SYS_landlock_create_ruleset, &handled, sizeof handled, 0));
    if (rules < 0 || ::prctl(PR_SET_NO_NEW_PRIVS, 1, 0, 0, 0) < 0) return false;
    const bool is_confined = ::syscall(SYS_landlock_restrict_self, rules, 0) == 0;
    ::close(rules);
    return is_confined;
}

bool write_file(const char* path, std::string_view text) {
    const warmfork::Descriptor file(::open(path, O_WRONLY | O_CLOEXEC));
    return ::write(file.get(), text.data(), text.size()) == static_cast<ssize_t>(text.size());
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
TEST_CASE("What the kernel tells behind a long list of groups counts as it does elsewhere") {
    // More than 64 KB of them.
    const auto join_groups = [] {
        std::vector<gid_t> groups(8000);
        std::iota(groups.begin(), groups.end(), 1'000'000);
        return ::setgroups(groups.size(), groups.data()) == 0;
    };
    if (!is_possible(join_groups)) return;
    const auto in_groups = [&](const auto& compare, const std::function<void()>& change) {
        return in_an_owner([&] {
            join_groups();
            return compare(change);
        });
    };
    CHECK(in_groups(cold_after, install_seccomp_filter) == "");
    CHECK(in_groups(cold_after, [] { REQUIRE(::prctl(PR_CAPBSET_DROP, 0, 0, 0, 0) == 0); }) == "");
    CHECK(in_groups(compare_after, [] { ::prctl(PR_SET_NO_NEW_PRIVS, 1, 0, 0, 0); }) == "");
    CHECK(in_groups(compare_after, [] { ::signal(SIGHUP, SIG_IGN); }) == "");
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

TEST_CASE("A namespace that the owner has entered since makes it cold") {
    for (int kind : {CLONE_NEWNET, CLONE_NEWUTS, CLONE_NEWIPC, CLONE_NEWCGROUP, CLONE_NEWTIME,
                     CLONE_NEWUSER}) {
        CAPTURE(kind);
        const auto enter = [kind] { return ::unshare(kind) == 0; };
        if (is_possible(enter)) CHECK(cold_after(enter) == "");
    }
}

TEST_CASE("Another name of the host, which modules keep, makes it cold") {
    const auto rename = [](std::string_view name) {
        return ::sethostname(name.data(), name.size()) == 0;
    };
    // In a namespace of its own, whose name is nobody else's.
    if (!is_possible([&] { return ::unshare(CLONE_NEWUTS) == 0 && rename("before"); })) return;
    CHECK(in_an_owner([&] {
              REQUIRE(::unshare(CLONE_NEWUTS) == 0);
              return cold_after([&] { REQUIRE(rename("after")); });
          }) == "");
}

TEST_CASE("A setting of the task that a warm child would not have makes it cold") {
    using Change = std::function<bool()>;
    const std::map<std::string, Change> changes{
        {"core dump filter", [] { return write_file("/proc/self/coredump_filter", "1"); }},
        {"huge pages", [] { return ::prctl(PR_SET_THP_DISABLE, 1, 0, 0, 0) == 0; }},
        {"writable code", [] { return ::prctl(65 /* PR_SET_MDWE */, 1, 0, 0, 0) == 0; }},
        {"merging", [] { return ::prctl(67 /* PR_SET_MEMORY_MERGE */, 1, 0, 0, 0) == 0; }},
        {"machine checks",
         [] { return ::prctl(PR_MCE_KILL, PR_MCE_KILL_SET, PR_MCE_KILL_EARLY, 0, 0) == 0; }},
        {"timer slack", [] { return ::prctl(PR_SET_TIMERSLACK, 77'000, 0, 0, 0) == 0; }},
        {"personality", [] { return ::personality(ADDR_NO_RANDOMIZE) >= 0; }},
        {"memory policy",
         [] {
             const unsigned long first_node = 1;
             return ::syscall(SYS_set_mempolicy, 3 /* interleave */, &first_node, 64) == 0;
         }},
        {"priority", [] {
             const sched_param lowest{1};
             return ::sched_setscheduler(0, SCHED_FIFO, &lowest) == 0;
         }}};
    for (const auto& [name, change] : changes) {
        CAPTURE(name);
        if (is_possible(change)) CHECK(cold_after(change) == "");
    }
}

TEST_CASE("An owner that has confined itself since gets cold children, and confined ones again") {
    if (is_possible(confine)) CHECK(cold_after(confine) == "");
}

TEST_CASE("A thread in another namespace does not replace the template of the others") {
    const auto enter = [] { return ::unshare(CLONE_NEWUTS) == 0; };
    if (!is_possible(enter)) return;
    CHECK(in_an_owner([&]() -> std::string {
              warmfork::Template table = probe_template(1, {}, WARMFORK_BACKEND_AUTO);
              table.wait_parked(1);
              ProbeRequest request({"exit", "0"});
              warmfork_reason reason{};
              std::thread([&] {
                  enter();
                  warmfork::Process child = table.spawn(request.get());
                  child.wait();
                  reason = child.reason();
              }).join();
              if (reason != WARMFORK_REASON_OWNER_CHANGED) return "not cold";
              return table.counts().template_starts == 1 ? "" : "started again";
          }) == "");
}

TEST_CASE("Children that begin in another pid namespace are cold, and need no template there") {
    const auto enter = [] { return ::unshare(CLONE_NEWPID) == 0; };
    if (!is_possible(enter)) return;
    for (bool is_open_before : {true, false})
        CHECK(in_an_owner([&]() -> std::string {
                  if (!is_open_before) enter();
                  warmfork::Template table = probe_template(1, {}, WARMFORK_BACKEND_AUTO);
                  if (is_open_before) {
                      table.wait_parked(1);
                      enter();
                  }
                  // The first is the namespace's first process: while it lives others can be born.
                  ProbeRequest first({"wait"}), next({"exit", "0"});
                  Pipe output;
                  first.put_output_on(output);
                  warmfork::Process waiting = table.spawn(first.get());
                  for (int turn = 0; turn < 3; ++turn) {
                      warmfork::Process child = table.spawn(next.get());
                      if (child.wait() != 0 || child.backend() == WARMFORK_BACKEND_WARM)
                          return "served " + std::string(child.backend_name());
                  }
                  waiting.signal(SIGKILL);
                  waiting.wait();
                  return table.counts().template_starts <= is_open_before ? "" : "started there";
              }) == "");
}

TEST_CASE("An owner whose process group is not of its pid namespace has cold children in it") {
    if (!is_possible([] { return ::unshare(CLONE_NEWPID) == 0; })) return;
    CHECK(in_an_owner([]() -> std::string {
              ::unshare(CLONE_NEWPID);
              return in_an_owner([]() -> std::string {
                  if (::getpgrp() != 0) return "the group has a number";
                  warmfork::Template table = probe_template(1, {}, WARMFORK_BACKEND_AUTO);
                  ProbeRequest request({"exit", "0"});
                  warmfork::Process child = table.spawn(request.get());
                  if (child.wait() != 0) return "failed";
                  return child.backend() == WARMFORK_BACKEND_COLD ? "" : "warm";
              });
          }) == "");
}

TEST_CASE(
    "What cannot be read counts as changed, and does not start the template again and again") {
    const auto hide = [] { return ::mount("none", "/proc", "tmpfs", 0, nullptr) == 0; };
    if (!is_possible([&] { return ::unshare(CLONE_NEWNS) == 0 && hide(); })) return;
    CHECK(in_an_owner([&]() -> std::string {
              ::unshare(CLONE_NEWNS);
              ::mount("none", "/", nullptr, MS_REC | MS_PRIVATE, nullptr);
              warmfork::Template table = probe_template(1, {}, WARMFORK_BACKEND_AUTO);
              table.wait_parked(1);
              hide();
              ProbeRequest request({"exit", "0"});
              for (int turn = 0; turn < 4; ++turn) {
                  std::string text;
                  // A thread of its own has none of the files open yet.
                  std::thread([&] {
                      warmfork::Process child = table.spawn(request.get());
                      child.wait();
                      text = child.reason() == WARMFORK_REASON_OWNER_CHANGED ? child.reason_text()
                                                                             : "not cold";
                  }).join();
                  if (text.find("/proc") == std::string::npos) return text;
              }
              return table.counts().template_starts == 1 ? "" : "started again";
          }) == "");
}

TEST_CASE("A directory that may not be entered is inherited by cold children") {
    CHECK(in_an_owner([]() -> std::string {
              char place[] = "/tmp/warmfork-test-XXXXXX";
              if (!::mkdtemp(place) || ::chdir(place) < 0) return "no directory";
              // Root enters any directory as long as it has these.
              __user_cap_header_struct header{_LINUX_CAPABILITY_VERSION_3, 0};
              __user_cap_data_struct sets[2];
              ::syscall(SYS_capget, &header, sets);
              for (int capability : {CAP_DAC_OVERRIDE, CAP_DAC_READ_SEARCH})
                  sets[0].effective &= ~(1u << capability);
              ::syscall(SYS_capset, &header, sets);
              warmfork::Template table = probe_template(1, {}, WARMFORK_BACKEND_AUTO);
              table.wait_parked(1);
              ::chmod(place, 0);
              ProbeRequest request({"exit", "0"});
              warmfork::Process child = table.spawn(request.get());
              const int status = child.wait();
              ::rmdir(place);
              if (status != 0) return "failed";
              return child.reason() == WARMFORK_REASON_OWNER_CHANGED ? "" : child.reason_text();
          }) == "");
}

TEST_CASE("Another process's words about a state are taken for no more than they are") {
    const warmfork::OwnerState state = warmfork::read_owner_state_once();
    REQUIRE(state.unknown == "");
    const std::string text = warmfork::encode_owner_state(state);
    const warmfork::OwnerState same = warmfork::decode_owner_state(text);
    CHECK(same.unknown == "");
    CHECK(warmfork::find_incompatible_change(same, state) == "");
    for (std::size_t size = 0; size < text.size(); ++size)
        REQUIRE(warmfork::decode_owner_state(text.substr(0, size)).unknown != "");
    for (std::size_t at = 0; at < text.size(); ++at) {
        std::string other = text;
        other[at] = '\x55';  // also where a bool is
        static_cast<void>(warmfork::decode_owner_state(other));
    }
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
