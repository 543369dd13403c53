// What a client of the service keeps, and what becomes of it where it may have little.
#include <fcntl.h>
#include <fmt/format.h>
#include <malloc.h>
#include <sys/prctl.h>
#include <sys/resource.h>
#include <sys/wait.h>

#include <atomic>
#include <thread>

#include "client/served_child.hpp"
#include "client/service_connection.hpp"
#include "support/catch.hpp"
#include "support/service.hpp"
#include "support/signal_rain.hpp"

using namespace warmfork;

namespace {

/// Spawns a probe with one variable, whose value is `value`, and returns its exit code.
int spawn_with(Template& table, const char* value) {
    const std::string variable = std::string("SETTING=") + value;
    const char* const environment[] = {variable.c_str(), nullptr};
    ProbeRequest request({"exit", "7"});
    request.request.environment = environment;
    return WEXITSTATUS(table.spawn(request.get()).wait());
}

void set_limit(__rlimit_resource resource, rlim_t most) {
    const rlimit limit{most, most};
    if (::setrlimit(resource, &limit) < 0) throw std::runtime_error("setrlimit");
}

/// How one more child is served: 'w'arm, cold for a 'l'imit, or for 'a'nother reason. '!': it
/// fails.
char served(Template& table, const warmfork_request& request, std::string* ret_error = nullptr) {
    try {
        Process child = table.spawn(request);
        if (WEXITSTATUS(child.wait()) != 7) return '!';
        if (child.reason() == WARMFORK_REASON_NONE) return 'w';
        return child.reason() == WARMFORK_REASON_LIMITS ? 'l' : 'a';
    } catch (const Error& error) {
        if (ret_error) *ret_error = error.what();
        return '!';
    }
}

}  // namespace

TEST_CASE("A client whose spawns differ each time keeps nothing of what it had leased ahead") {
    // By far less than one of them would take each time.
    constexpr std::size_t kMostGrowth = 8 * 1024;
    TestService service;
    CHECK(as_client(service, [] {
              Template table = Template::connect("probe", WARMFORK_BACKEND_WARM);
              const auto spawn_many = [&](int count) {
                  bool are_well = true;
                  for (int i = 0; i < count; ++i)
                      are_well = spawn_with(table, i % 2 == 0 ? "a" : "b") == 7 && are_well;
                  return are_well;
              };
              if (!spawn_many(40)) return 1;
              const std::size_t before = ::mallinfo2().uordblks;
              if (!spawn_many(160)) return 1;
              const std::size_t after = ::mallinfo2().uordblks;
              return after < before + kMostGrowth ? 0 : 2;
          }) == 0);
}

TEST_CASE("A client with few numbers free has cold children, and no error", "[numbers]") {
    TestService service;
    ClientProcess client(service, [] {
        set_limit(RLIMIT_NOFILE, 128);
        Template table = Template::connect("probe", WARMFORK_BACKEND_AUTO);
        ProbeRequest request({"exit", "7"});
        // From then on there is a keeper.
        request.request.backend = WARMFORK_BACKEND_COLD;
        if (served(table, request.get()) == '!') return 1;
        request.request.backend = WARMFORK_BACKEND_AUTO;
        std::string seen, failed;
        // What is leased ahead takes numbers, and gives them back.
        for (int i = 0; i < 8; ++i) seen += served(table, request.get());
        std::vector<Descriptor> taken;
        while (Descriptor one{::open("/dev/null", O_RDWR | O_CLOEXEC)})
            taken.push_back(std::move(one));
        taken.pop_back();  // for the wait
        for (int i = 0; i < 24; ++i) seen += served(table, request.get(), &failed);
        for (int free = 1; free <= 24 && !taken.empty(); ++free) {
            taken.pop_back();
            for (int i = 0; i < 2; ++i) seen += served(table, request.get(), &failed);
        }
        say(seen + failed);
        return 0;
    });
    const std::string seen = client.next_line();
    CAPTURE(seen);
    CHECK(seen.find('!') == std::string::npos);
    CHECK(seen.find('l') != std::string::npos);
    CHECK(seen.ends_with('w'));
}

namespace {

/// Children of it are never prepared.
TestService::Settings without_parked_children() {
    TestService::Settings settings;
    settings.templates["probe"] = probe_definition("", {"block-child"});
    return settings;
}

}  // namespace

TEST_CASE("The wait for parked children is not over because signals come") {
    TestService service(without_parked_children());
    CHECK(as_client(service, [] {
              Template table = Template::connect("probe", WARMFORK_BACKEND_AUTO);
              const SignalRain rain;
              warmfork_failure failure{};
              return -warmfork_template_wait_parked(table.handle(), 1, 2000, &failure);
          }) == ETIMEDOUT);
}

TEST_CASE("A thread that waits for parked children holds up no other one's spawn") {
    constexpr int kLong = 120'000;  // milliseconds
    TestService service(without_parked_children());
    CHECK(as_client(service, [] {
              Template table = Template::connect("probe", WARMFORK_BACKEND_AUTO);
              std::atomic<bool> has_waited{false};
              std::atomic<int> error{0};
              std::thread waiter([&] {
                  error = warmfork_template_wait_parked(table.handle(), 1, kLong, nullptr);
                  has_waited = true;
              });
              while (warmfork_template_parked(table.handle()) == 0 && !has_waited)
                  std::this_thread::yield();
              ProbeRequest request({"exit", "7"});
              // With the child that is waited for, which does not begin in time.
              const char how = served(table, request.get());
              waiter.join();
              return how == 'a' && error == 0 ? 0 : 1;
          }) == 0);
}

TEST_CASE("How a child has ended whose service was killed is told, whatever signals come") {
    const std::string wrong = in_an_owner([]() -> std::string {
        ::alarm(120);
        ::prctl(PR_SET_CHILD_SUBREAPER, 1);
        TestService service;
        ::setenv("WARMFORK_SOCKET", service.socket().c_str(), 1);
        Template table = Template::connect("probe", WARMFORK_BACKEND_WARM);
        Process child = table.spawn({WARMFORK_PROBE, "wait"});
        static pid_t pid;
        static std::atomic<int> signals{0};
        pid = child.pid();
        service.kill();
        child.signal(SIGKILL);
        const SignalRain rain;
        // Whoever has inherited it, this process here, takes its time to reap it.
        struct sigaction reap_late {};
        reap_late.sa_handler = [](int) {
            const int before = errno;
            if (++signals >= 20) ::waitpid(pid, nullptr, WNOHANG);
            errno = before;
        };
        ::sigaction(SIGUSR1, &reap_late, nullptr);
        try {
            const int status = child.wait();
            return WIFSIGNALED(status) && WTERMSIG(status) == SIGKILL ? "" : "another status";
        } catch (const Error& error) {
            int status;
            const bool is_known = ask_kernel_for_status(child.pidfd(), status);
            const bool is_reaped = ::kill(pid, 0) < 0;
            // Before Linux 6.15 nobody tells.
            return is_reaped && !is_known ? "" : error.what();
        }
    });
    CHECK(wrong == "");
}

namespace {

constexpr uid_t kNobody = 65534;

/// A service whose other users may have a child that prints its pid, and waits.
TestService::Settings fixed_command() {
    TestService::Settings settings;
    settings.has_passed_socket = true;
    settings.daemon = "allowed_users = [65534]\n";
    settings.templates["fixed"] =
        probe_definition(fmt::format("command = [\"{}\", \"wait\"]\n", WARMFORK_PROBE));
    return settings;
}

std::vector<Descriptor> take_all_numbers() {
    set_limit(RLIMIT_NOFILE, 64);
    std::vector<Descriptor> taken;
    while (Descriptor one{::open("/dev/null", O_RDWR | O_CLOEXEC)}) taken.push_back(std::move(one));
    return taken;
}

/// Has nobody the other end any more, and has nobody written to it?
bool is_unused(Pipe& pipe) {
    char byte;
    pipe.write_end.reset();
    return ::read(pipe.read_end.get(), &byte, 1) == 0;
}

}  // namespace

TEST_CASE("A fixed command does not run for a client that has no number free for it") {
    if (::geteuid() != 0) return;
    TestService service(fixed_command());
    CHECK(as_client(service, [] {
              if (::setresuid(kNobody, kNobody, kNobody) < 0) return 98;
              Template table = Template::connect("fixed", WARMFORK_BACKEND_AUTO);
              Pipe output;
              ProbeRequest request({"wait"});
              request.put_output_on(output);
              static_cast<void>(request.get());
              const std::vector<Descriptor> taken = take_all_numbers();
              try {
                  static_cast<void>(table.spawn(request.get()));
                  return 97;
              } catch (const Error& error) {
                  if (error.error_number() != EMFILE) return 96;
              }
              return is_unused(output) ? 0 : 95;
          }) == 0);
}

TEST_CASE("A fixed command that runs when no number is free for it is ended") {
    if (::geteuid() != 0) return;
    TestService service(fixed_command());
    CHECK(as_client(service, [] {
              if (::setresuid(kNobody, kNobody, kNobody) < 0) return 98;
              std::shared_ptr<ServiceConnection> connection;
              if (ServiceConnection::get(connection)) return 97;
              Pipe output;
              const int standard[] = {output.write_end.get(), output.write_end.get(),
                                      output.write_end.get()};
              const std::uint64_t id = connection->request(
                  ServiceKind::run, FieldWriter().text("fixed").bytes(), standard);
              const std::vector<Descriptor> taken = take_all_numbers();
              ServiceConnection::Answer answer;
              if (connection->answer(id, {}, answer) || !answer.refusal) return 96;
              if (answer.refusal->error_number != EMFILE) return 95;
              output.write_end.reset();
              char line[64];
              while (::read(output.read_end.get(), line, sizeof line) > 0) {
              }
              return 0;
          }) == 0);
}

TEST_CASE("A client that may make no large files has cold children for large requests") {
    TestService service;
    CHECK(as_client(service, [] {
              set_limit(RLIMIT_FSIZE, 100u << 10);
              Template table = Template::connect("probe", WARMFORK_BACKEND_AUTO);
              const std::string variable = "LARGE=" + std::string(120u << 10, 'x');
              const char* const environment[] = {variable.c_str(), variable.c_str(), nullptr};
              ProbeRequest request({"exit", "7"});
              request.request.environment = environment;
              if (served(table, request.get()) != 'l') return 1;
              request.request.environment = environment + 2;
              return served(table, request.get()) == '!' ? 2 : 0;
          }) == 0);
}

TEST_CASE("A service without free numbers makes a client's children cold, and no error") {
    TestService service;
    ClientProcess client(service, [] {
        Template table = Template::connect("probe", WARMFORK_BACKEND_AUTO);
        ProbeRequest request({"exit", "7"});
        say("connected");
        await_cue();
        say(std::string(1, served(table, request.get())));
        return 0;
    });
    REQUIRE(client.next_line() == "connected");
    // Fewer than it has: none is free.
    const rlimit limit{16, 16};
    REQUIRE(::prlimit(service.pid(), RLIMIT_NOFILE, &limit, nullptr) == 0);
    client.give_cue();
    CHECK(client.next_line() == "l");
}
