// Clients of the service's own user that are confined: none of them has an unconfined child.
#include <fcntl.h>
#include <fmt/format.h>
#include <grp.h>
#include <linux/filter.h>
#include <linux/seccomp.h>
#include <sched.h>
#include <sys/prctl.h>
#include <sys/socket.h>
#include <sys/stat.h>
#include <sys/syscall.h>
#include <unistd.h>

#include <numeric>

#include "support/catch.hpp"
#include "support/service.hpp"

using namespace warmfork;

namespace {

// Of a client that cannot confine itself so: not allowed here, or not known to the kernel.
constexpr int kImpossible = 50;
// Statuses of one that has been refused, and of one that has not.
constexpr int kRefused = 1, kLeased = 2;

bool install_filter() {
    sock_filter allow{BPF_RET | BPF_K, 0, 0, SECCOMP_RET_ALLOW};
    const sock_fprog program{1, &allow};
    return ::prctl(PR_SET_NO_NEW_PRIVS, 1, 0, 0, 0) == 0 &&
           ::prctl(PR_SET_SECCOMP, SECCOMP_MODE_FILTER, &program) == 0;
}

/// Denies the making of character devices, and nothing that a test does.
bool enter_landlock() {
    const std::uint64_t handled = std::uint64_t{1} << 6;  // LANDLOCK_ACCESS_FS_MAKE_CHAR
    const Descriptor ruleset(
        static_cast<int>(::syscall(444, &handled, sizeof handled, 0)));  // landlock_create_ruleset
    return ruleset && ::prctl(PR_SET_NO_NEW_PRIVS, 1, 0, 0, 0) == 0 &&
           ::syscall(446, ruleset.get(), 0) == 0;  // landlock_restrict_self
}

struct Confinement {
    const char* name;
    std::function<bool()> enter;
};

const Confinement kConfinements[] = {
    {"no_new_privs", [] { return ::prctl(PR_SET_NO_NEW_PRIVS, 1, 0, 0, 0) == 0; }},
    {"a filter of system calls", install_filter},
    {"Landlock", enter_landlock},
    {"a network namespace", [] { return ::unshare(CLONE_NEWNET) == 0; }},
    {"a namespace of host names", [] { return ::unshare(CLONE_NEWUTS) == 0; }},
    {"a mount namespace", [] { return ::unshare(CLONE_NEWNS) == 0; }},
    {"a namespace of processes for children", [] { return ::unshare(CLONE_NEWPID) == 0; }},
    {"a user namespace", [] { return ::unshare(CLONE_NEWUSER) == 0; }},
    {"a root directory", [] { return ::chroot("/usr") == 0; }},
    {"a capability less",
     [] { return ::geteuid() == 0 && ::prctl(PR_CAPBSET_DROP, 0, 0, 0, 0) == 0; }},
};

/// What becomes of a lease that this client asks for.
int ask(RawClient& client, const std::vector<std::byte>& body) {
    ServiceMessage answer;
    client.send(ServiceKind::lease, 1, body);
    while (client.receive(answer) == 0) {
        if (answer.kind == ServiceKind::leased) return kLeased;
        if (answer.kind == ServiceKind::refused) {
            const auto refusal = read_refusal(answer.body);
            return refusal && refusal->reason == WARMFORK_REASON_OWNER_CHANGED ? kRefused : 60;
        }
    }
    return 61;
}

}  // namespace

TEST_CASE("A client that is confined when it connects gets no lease") {
    TestService service;
    for (const Confinement& confinement : kConfinements) {
        const int status = as_client(service, [&] {
            const std::vector<std::byte> body = lease_body();
            // Into another root it takes the service's socket along.
            const Descriptor directory(
                ::open((service.directory() + "/run").c_str(), O_PATH | O_CLOEXEC));
            if (!confinement.enter()) return kImpossible;
            if (::fchdir(directory.get()) < 0) return 62;
            RawClient client("socket");
            return ask(client, body);
        });
        INFO(confinement.name);
        if (status == kImpossible)
            WARN(confinement.name << " cannot be entered here");
        else
            CHECK(status == kRefused);
    }
}

TEST_CASE("A client that confines itself later gets no lease from then on") {
    TestService service;
    for (const Confinement& confinement : kConfinements) {
        const int status = as_client(service, [&] {
            const std::vector<std::byte> body = lease_body();
            RawClient client(service.socket());
            if (ask(client, body) != kLeased) return 62;
            if (!confinement.enter()) return kImpossible;
            return ask(client, body);
        });
        INFO(confinement.name);
        if (status != kImpossible) CHECK(status == kRefused);
    }
}

TEST_CASE("A confined client of a service of many groups gets no lease") {
    CHECK(in_an_owner([]() -> std::string {
              std::vector<gid_t> groups(8000);
              std::iota(groups.begin(), groups.end(), 1'000'000);
              if (::setgroups(groups.size(), groups.data()) < 0) return {};  // not allowed here
              TestService service;
              for (const Confinement& confinement : kConfinements) {
                  const int status = as_client(service, [&] {
                      RawClient client(service.socket());
                      if (ask(client, lease_body()) != kLeased) return 62;
                      return confinement.enter() ? ask(client, lease_body()) : kImpossible;
                  });
                  if (status != kRefused && status != kImpossible)
                      return std::string(confinement.name) + ": " + std::to_string(status);
              }
              return {};
          }) == "");
}

TEST_CASE("Another process may not use the connection of the one that has made it") {
    TestService service;
    CHECK(as_client(service, [&] {
              const std::vector<std::byte> body = lease_body();
              RawClient client(service.socket());
              const pid_t copy = ::fork();
              if (copy == 0) ::_exit(ask(client, body));
              int status = 0;
              ::waitpid(copy, &status, 0);
              // Its own are served as ever.
              return ask(client, body) == kLeased ? WEXITSTATUS(status) : 62;
          }) == kRefused);
}

TEST_CASE("A text that was never the service's proves nothing") {
    TestService service;
    CHECK(as_client(service, [&] {
              RawClient client(service.socket());
              LeaseRequest request = *read_lease_request(lease_body());
              request.sight = "/memfd:warmforkd-0 (deleted)";
              return ask(client, write_body(request));
          }) == kRefused);
}

TEST_CASE("What was read before a reload is shown after it") {
    TestService service;
    CHECK(as_client(service, [&] {
              RawClient client(service.socket());
              LeaseRequest request = *read_lease_request(lease_body());
              request.sight = client.sight();
              service.signal(SIGHUP);
              if (!service.has_logged("goes on with 1 clients")) return 62;
              if (ask(client, write_body(request)) != kLeased) return 63;
              return ask(client, lease_body());
          }) == kLeased);
}

TEST_CASE("A confined program that uses the library is served cold, with the reason") {
    TestService service;
    for (const Confinement& confinement : kConfinements) {
        // There the library finds neither the probe nor the service, or can start one process only.
        const std::string_view name = confinement.name;
        if (name == "a root directory" || name == "a namespace of processes for children") continue;
        const int status = as_client(service, [&] {
            if (!confinement.enter()) return kImpossible;
            Template table = Template::connect("probe", WARMFORK_BACKEND_AUTO);
            Process child = table.spawn({WARMFORK_PROBE, "exit", "7"});
            if (child.backend() != WARMFORK_BACKEND_COLD) return kLeased;
            if (child.reason() != WARMFORK_REASON_OWNER_CHANGED) return 64;
            return WEXITSTATUS(child.wait()) == 7 ? kRefused : 65;
        });
        INFO(confinement.name);
        if (status != kImpossible) CHECK(status == kRefused);
    }
}
