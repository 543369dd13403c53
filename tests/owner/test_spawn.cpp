#include <fcntl.h>
#include <signal.h>
#include <stdlib.h>
#include <sys/ioctl.h>
#include <sys/resource.h>
#include <sys/wait.h>
#include <unistd.h>

#include <algorithm>
#include <atomic>
#include <filesystem>
#include <fstream>
#include <iterator>
#include <mutex>
#include <set>
#include <thread>

#include "support/catch.hpp"
#include "support/processes.hpp"

using warmfork::Error;

namespace {

// Spawns that say something by their number; under the sanitizers each takes many times as long.
#ifdef __SANITIZE_ADDRESS__
constexpr int kMany = 150;
#else
constexpr int kMany = 1000;
#endif

template <typename Call>
int errno_of(Call call) {
    try {
        call();
    } catch (const Error& error) {
        return error.error_number();
    }
    return 0;
}

}  // namespace

TEST_CASE("A program that does not exist fails cold as posix_spawn does") {
    warmfork_request request;
    warmfork_request_init(&request);
    warmfork_failure failure{};
    warmfork_process* process = nullptr;
    const char* const absolute[] = {"/no/such/program", nullptr};
    const char* const relative[] = {"no-such-program-anywhere", nullptr};
    const char* const forbidden[] = {"/etc/passwd", nullptr};
    for (const auto& [arguments, error] :
         {std::pair(absolute, ENOENT), std::pair(relative, ENOENT), std::pair(forbidden, EACCES)}) {
        request.arguments = arguments;
        CHECK(warmfork_spawn(nullptr, &request, &process, &failure) == -error);
        CHECK(failure.stage == WARMFORK_STAGE_EXEC);
        CHECK(process == nullptr);  // untouched
    }
}

TEST_CASE("Backend warm refuses what only cold can do, and says what") {
    warmfork::Template table = probe_template(1);
    try {
        table.spawn({"/bin/true"});
        FAIL("it was served");
    } catch (const Error& error) {
        CHECK(error.stage() == WARMFORK_STAGE_ELIGIBILITY);
        CHECK(error.error_number() == ENOTSUP);
        CHECK(std::string(error.what()).find("/bin/true") != std::string::npos);
    }
}

TEST_CASE("A terminal of its own: a warm child's session has it, and a cold child gets none") {
    warmfork::Template table = probe_template(1);
    ProbeRequest request({"cue", "exit", "5"});
    request.request.flags |= WARMFORK_TERMINAL;
    const warmfork::Descriptor master(::posix_openpt(O_RDWR | O_NOCTTY | O_CLOEXEC));
    REQUIRE(::unlockpt(master.get()) == 0);
    const warmfork::Descriptor slave(
        ::ioctl(master.get(), TIOCGPTPEER, O_RDWR | O_NOCTTY | O_CLOEXEC));
    REQUIRE(slave);
    request.descriptors = {{slave.get(), 0}};
    warmfork::Process child = table.spawn(request.get());
    CHECK(child.backend() == WARMFORK_BACKEND_WARM);
    pid_t session = 0;
    CHECK(::ioctl(master.get(), TIOCGSID, &session) == 0);
    CHECK(session == child.pid());
    CHECK(::write(master.get(), "\n", 1) == 1);
    CHECK(WEXITSTATUS(child.wait()) == 5);

    const Pipe pipe;
    request.descriptors = {{pipe.read_end.get(), 0}};
    CHECK(errno_of([&] { table.spawn(request.get()); }) == ENOTTY);
    request.request.backend = WARMFORK_BACKEND_COLD;
    CHECK(errno_of([&] { table.spawn(request.get()); }) == ENOTSUP);
    warmfork_process* process = nullptr;
    CHECK(warmfork_spawn(nullptr, &request.get(), &process, nullptr) == -ENOTSUP);
}

TEST_CASE("WARMFORK_BACKEND selects the backend where no call does") {
    warmfork::Template table = probe_template(1, {}, WARMFORK_BACKEND_DEFAULT);
    ProbeRequest request({"exit", "0"});
    ::setenv("WARMFORK_BACKEND", "cold", 1);
    warmfork::Process cold = table.spawn(request.get());
    request.request.backend = WARMFORK_BACKEND_WARM;
    warmfork::Process warm = table.spawn(request.get());
    ::unsetenv("WARMFORK_BACKEND");
    CHECK(cold.wait() == 0);
    CHECK(warm.wait() == 0);
    CHECK(cold.reason() == WARMFORK_REASON_ASKED);
    CHECK(warm.backend() == WARMFORK_BACKEND_WARM);
    CHECK(table.counts().cold_by_reason[WARMFORK_REASON_ASKED] == 1);
}

TEST_CASE("Options that make no template are refused at once") {
    warmfork_template_options options;
    warmfork_template_options_init(&options);
    warmfork_template* table = nullptr;
    warmfork_failure failure{};
    CHECK(warmfork_template_open(&options, &table, &failure) == -EINVAL);
    const char* const missing[] = {"/no/such/template", nullptr};
    options.program = missing;
    CHECK(warmfork_template_open(&options, &table, &failure) == -ENOENT);
    CHECK(failure.stage == WARMFORK_STAGE_LAUNCH);
    const char* const probe[] = {WARMFORK_PROBE, nullptr};
    options.program = probe;
    options.spares = 5000;
    CHECK(warmfork_template_open(&options, &table, &failure) == -EINVAL);
    CHECK(table == nullptr);
}

TEST_CASE("Many that are spawned at once wait for the image that is not ready yet") {
    warmfork::Template table = probe_template(0);
    ProbeRequest request({"exit", "0"});
    request.request.backend = WARMFORK_BACKEND_AUTO;
    std::vector<warmfork::Process> children = table.spawn(request.get(), 8);
    for (warmfork::Process& child : children) {
        CHECK(child.wait() == 0);
        CHECK(child.backend() == WARMFORK_BACKEND_WARM);
    }
}

TEST_CASE("N children are one command, each a child of its own", "[numbers]") {
    warmfork::Template table = probe_template(0);
    ProbeRequest request({"exit", "9"});
    std::vector<warmfork::Process> children = table.spawn(request.get(), 40);
    std::set<pid_t> pids;
    for (warmfork::Process& child : children) {
        CHECK(WEXITSTATUS(child.wait()) == 9);
        pids.insert(child.pid());
    }
    CHECK(pids.size() == 40);
    CHECK(table.counts().forked == 40);
}

TEST_CASE("N children that cannot be set up are none") {
    warmfork::Template table = probe_template(0);
    ProbeRequest request({"wait"});
    request.request.directory = "/nowhere";
    CHECK(errno_of([&] { table.spawn(request.get(), 10); }) == ENOENT);
    CHECK(children_of(::getpid()).size() == 1);  // the template
}

TEST_CASE("No spares, and a thousand", "[many]") {
    for (int count : {0, kMany}) {
        warmfork::Template table = probe_template(count);
        table.wait_parked(static_cast<std::uint32_t>(count), 120'000);
        // Where something has just happened beside the files of the image, one is forked, as the
        // template looks then.
        for (int i = 0; i < 3 || (i < 100 && count && table.counts().handed_off == 0); ++i) {
            int status;
            output_of(table, {"exit", "3"}, &status);
            CHECK(WEXITSTATUS(status) == 3);
        }
        CHECK((table.counts().handed_off > 0) == (count > 0));
    }
}

TEST_CASE("Under a low limit on open files spawns still work, with the spares that fit") {
    rlimit before{};
    ::getrlimit(RLIMIT_NOFILE, &before);
    const rlimit low{64, before.rlim_max};
    ::setrlimit(RLIMIT_NOFILE, &low);
    {
        warmfork::Template table = probe_template(100);
        table.wait_parked(3);
        for (int i = 0; i < 5; ++i) {
            int status;
            output_of(table, {"exit", "3"}, &status);
            CHECK(WEXITSTATUS(status) == 3);
        }
    }
    ::setrlimit(RLIMIT_NOFILE, &before);
}

TEST_CASE(
    "An unprivileged user at its process limit gets EAGAIN from the fork, and spawns again later") {
    if (::geteuid() != 0) return;  // the limit does not bind root, so the test changes its user
    Pipe answer;
    const pid_t pid = ::fork();
    if (pid == 0) {
        std::string text = "served";
        if (::setgid(54321) == 0 && ::setuid(54321) == 0) {
            warmfork::Template table = probe_template(0);
            table.wait_parked(0);
            const rlimit none{1, 1};
            warmfork_limit unlimited{};
            // Of the template: the limit counts for the process that forks.
            ::prlimit(warmfork_template_pid(table.handle()), RLIMIT_NPROC, &none, nullptr);
            static_cast<void>(unlimited);
            try {
                table.spawn({WARMFORK_PROBE, "exit", "0"});
            } catch (const Error& error) {
                text = std::string(warmfork_stage_name(error.stage())) + " " +
                       std::to_string(error.error_number());
            }
        }
        if (::write(answer.write_end.get(), text.data(), text.size()) < 0) ::_exit(2);
        ::_exit(0);
    }
    CHECK(answer.read_all() == "fork " + std::to_string(EAGAIN));
    ::waitpid(pid, nullptr, 0);
}

TEST_CASE("Many threads spawn at once, and each gets its own child's status", "[numbers]") {
    warmfork::Template table = probe_template(4, {}, WARMFORK_BACKEND_AUTO);
    std::vector<std::thread> threads;
    std::atomic<int> right{0};
    for (int i = 0; i < 8; ++i)
        threads.emplace_back([&, i] {
            for (int round = 0; round < 25; ++round) {
                ProbeRequest request({"exit", std::to_string(i * 25 + round)});
                if (round % 3 == 0) request.request.backend = WARMFORK_BACKEND_COLD;
                warmfork::Process child = table.spawn(request.get());
                right += WEXITSTATUS(child.wait()) == i * 25 + round;
            }
        });
    for (std::thread& thread : threads) thread.join();
    CHECK(right == 200);
}

TEST_CASE("A stopped template makes a non-blocking spawn say EAGAIN, and a blocking one wait") {
    warmfork::Template table = probe_template(0);
    table.wait_parked(0);
    const pid_t pid = warmfork_template_pid(table.handle());
    ::kill(pid, SIGSTOP);
    // Fills the ring with commands that nobody waits for.
    while (warmfork_template_set_spares(table.handle(), 0) == 0) {
    }
    ProbeRequest request({"exit", "6"});
    request.request.flags |= WARMFORK_NONBLOCK;
    CHECK(errno_of([&] { table.spawn(request.get()); }) == EAGAIN);
    std::thread waiter([&] {
        ProbeRequest patient({"exit", "6"});
        CHECK(WEXITSTATUS(table.spawn(patient.get()).wait()) == 6);
    });
    ::kill(pid, SIGCONT);
    waiter.join();
}

TEST_CASE("Many threads that find the template stopped all wait, and none is turned away",
          "[numbers]") {
    warmfork::Template table = probe_template(0);
    table.wait_parked(0);
    const pid_t pid = warmfork_template_pid(table.handle());
    ::kill(pid, SIGSTOP);
    // More commands than the control socket holds messages.
    std::vector<std::thread> threads;
    std::atomic<int> right{0};
    std::mutex mutex;
    std::string failures;
    for (int i = 0; i < 300; ++i)
        threads.emplace_back([&] {
            try {
                right += WEXITSTATUS(table.spawn({WARMFORK_PROBE, "exit", "6"}).wait()) == 6;
            } catch (const Error& error) {
                const std::lock_guard lock(mutex);
                failures = error.what();
            }
        });
    ::kill(pid, SIGCONT);
    for (std::thread& thread : threads) thread.join();
    CHECK(failures == "");
    CHECK(right == 300);
}

TEST_CASE("Changing the number of spares during spawns costs no child its life", "[many]") {
    warmfork::Template table = probe_template(8);
    std::atomic<bool> done{false};
    std::thread changer([&] {
        for (int i = 0; !done; ++i) warmfork_template_set_spares(table.handle(), i % 2 ? 1 : 8);
    });
    int right = 0;
    for (int i = 0; i < kMany; ++i)
        right += WEXITSTATUS(table.spawn({WARMFORK_PROBE, "exit", "7"}).wait()) == 7;
    done = true;
    changer.join();
    CHECK(right == kMany);
}

#ifndef __SANITIZE_ADDRESS__  // whose allocator may be locked in the copy
TEST_CASE("An owner that forks while its other threads spawn: both sides go on spawning") {
    warmfork::Template table = probe_template(2, {}, WARMFORK_BACKEND_AUTO);
    std::atomic<bool> done{false};
    std::vector<std::thread> threads;
    for (warmfork_backend backend : {WARMFORK_BACKEND_WARM, WARMFORK_BACKEND_COLD})
        threads.emplace_back([&, backend] {
            while (!done) {
                ProbeRequest request({"exit", "0"});
                request.request.backend = backend;
                table.spawn(request.get()).wait();
            }
        });
    int right = 0;
    for (int i = 0; i < 40; ++i) {
        const pid_t worker = ::fork();
        if (worker == 0) {
            const char* const arguments[] = {WARMFORK_PROBE, "exit", "5", nullptr};
            warmfork_request request;
            warmfork_request_init(&request);
            request.arguments = arguments;
            warmfork_process* process;
            int status = 0;
            if (warmfork_spawn(nullptr, &request, &process, nullptr) == 0)
                warmfork_process_wait(process, 0, &status, nullptr);
            ::_exit(WEXITSTATUS(status));
        }
        int status = 0;
        ::waitpid(worker, &status, 0);
        right += WEXITSTATUS(status) == 5;
    }
    done = true;
    for (std::thread& thread : threads) thread.join();
    CHECK(right == 40);
}
#endif

TEST_CASE("poll, signal, pidfd and usage of a child") {
    warmfork::Template table = probe_template(1);
    Pipe output;
    ProbeRequest request({"wait"});
    request.put_output_on(output);
    warmfork::Process child = table.spawn(request.get());
    char digits[16];
    REQUIRE(::read(output.read_end.get(), digits, sizeof digits) > 0);
    CHECK(std::atoi(digits) == child.pid());
    int status = 0;
    CHECK_FALSE(child.poll(status));
    const int pidfd = child.pidfd();
    CHECK(pidfd >= 0);
    child.signal(SIGTERM);
    rusage usage{};
    CHECK(child.wait(&usage) == SIGTERM);
    CHECK(child.wait() == SIGTERM);  // kept
    CHECK(errno_of([&] { child.signal(SIGTERM); }) == ESRCH);
}

TEST_CASE("The report says what the template looks like from inside") {
    warmfork::Template table = probe_template(1);
    table.wait_parked(1);
    char* json = nullptr;
    REQUIRE(warmfork_template_report(table.handle(), &json, nullptr) == 0);
    CHECK(std::string(json).find("\"threads\"") != std::string::npos);
    std::free(json);
}

TEST_CASE("Thousands of serial spawns: every status right, nothing more at the end than before",
          "[many]") {
    warmfork::Template table = probe_template();
    table.wait_parked(1);
    const auto descriptors = [&](pid_t pid) {
        return std::distance(
            std::filesystem::directory_iterator("/proc/" + std::to_string(pid) + "/fd"),
            std::filesystem::directory_iterator());
    };
    const auto mappings = [&](pid_t pid) {
        std::ifstream file("/proc/" + std::to_string(pid) + "/maps");
        return std::count(std::istreambuf_iterator<char>(file), {}, '\n');
    };
    const pid_t pid = warmfork_template_pid(table.handle());
    const auto spawn = [&](int number) {
        ProbeRequest request({"exit", std::to_string(number % 256)});
        return WEXITSTATUS(table.spawn(request.get()).wait()) == number % 256;
    };
    int right = 0;
    for (int i = 0; i < 100; ++i) right += spawn(i);
    table.wait_parked(1);
    [[maybe_unused]] const auto before = std::tuple(mappings(::getpid()), mappings(pid));
    for (int i = 100; i < 10 * kMany; ++i) right += spawn(i);
    table.wait_parked(1);
    CHECK(right == 10 * kMany);
#ifndef __SANITIZE_ADDRESS__  // whose allocator maps as it likes
    CHECK(std::tuple(mappings(::getpid()), mappings(pid)) == before);
#endif
    // Of spares there are now one to eight, with a pidfd and a token each; and where another one is
    // to be forked, the template looks at itself.
    CHECK(descriptors(pid) <= 3 + 7 + 2 * 8 + 1);
    CHECK(children_of(::getpid()).size() <= 1 + 8);
    CHECK(children_of(pid).empty());
}
