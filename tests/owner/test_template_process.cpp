// One template as its owner holds it, at times that no test waits for.
#include "owner/template_process.hpp"

#include <poll.h>
#include <signal.h>
#include <sys/wait.h>

#include <future>
#include <thread>

#include "owner/cold.hpp"
#include "owner/waiting.hpp"
#include "protocol/limits.hpp"
#include "support/catch.hpp"
#include "support/processes.hpp"

using namespace warmfork;

namespace {

/// Waits until so many spares are parked. From now on it rings.
void wait_parked(TemplateProcess& table, std::uint32_t count) {
    const Outcome failure = table.wait_parked(count, WaitClock::now() + std::chrono::seconds(60));
    REQUIRE_FALSE(failure);
    table.attend();
}

/// A template of warmfork-probe that keeps so many spares.
LaunchedTemplate launch_probe(std::uint32_t spares = 1) {
    LaunchPlan plan;
    plan.arguments = {WARMFORK_PROBE, "serve"};
    plan.spares_least = plan.spares_most = spares;
    LaunchedTemplate launched;
    const Outcome failure = launch_template(plan, launched);
    REQUIRE_FALSE(failure);
    return launched;
}

}  // namespace

TEST_CASE("A spare that has grown old is not handed off, and a new one takes its place") {
    TemplateProcess table(launch_probe());
    wait_parked(table, 1);
    const std::vector<int> old = spares();
    REQUIRE(old.size() == 1);
    const Descriptor end_of_old = open_pidfd(old[0]);
    CHECK_FALSE(table.take_spare(Lifetime::owner, WaitClock::now() + kOldestSpare));
    table.wake_to_refill();
    wait_parked(table, 1);
    const std::optional<Born> young =
        table.take_spare(Lifetime::owner, WaitClock::now() + kOldestSpare / 2);
    REQUIRE(young);
    CHECK(young->pid != old[0]);
    CHECK(has_ended(end_of_old));
    end_child(young->identity());
}

TEST_CASE("A spare that has grown old is reaped when it ends, though none is made in its place") {
    TemplateProcess table(launch_probe(2));
    wait_parked(table, 2);
    const std::vector<int> old = spares();
    REQUIRE(old.size() == 2);
    REQUIRE(::kill(old[1], SIGSTOP) == 0);
    CHECK_FALSE(table.take_spare(Lifetime::owner, WaitClock::now() + 2 * kOldestSpare));
    REQUIRE(table.set_spares(1, 1) == 0);
    wait_parked(table, 1);
    REQUIRE(::kill(old[1], SIGCONT) == 0);
    siginfo_t info{};
    const auto is_reaped = [&] {
        return ::waitid(P_PID, static_cast<id_t>(old[1]), &info, WEXITED | WNOHANG | WNOWAIT) < 0;
    };
    pollfd bell{table.bell(), POLLIN, 0};
    while (!is_reaped() && ::poll(&bell, 1, 60'000) == 1) table.attend();
    CHECK(is_reaped());
}

TEST_CASE("Who waits for a command to be taken can be interrupted, and the template lives on") {
    TemplateProcess table(launch_probe(0));
    const Outcome unready = table.wait_ready(WaitClock::now() + std::chrono::seconds(60));
    REQUIRE_FALSE(unready);
    REQUIRE(::kill(table.pid(), SIGSTOP) == 0);
    const std::vector<std::byte> record(kMaximumFramePayload / 2);
    const auto command = [&](bool nonblocking) {
        std::uint64_t id;
        std::vector<Born> born;
        const Outcome failure = table.fork_on_command(record, -1, {}, 1, 0, nonblocking, id, born);
        return failure ? failure->error_number : 0;
    };
    int error;
    while ((error = command(true)) == 0) {
    }
    REQUIRE(error == EAGAIN);  // the ring is full
    std::promise<void> waits, is_to_end;
    int of_first = 0, of_handler = 0, of_second = 0;
    std::thread first([&] {
        bool is_first = true;
        const Interruption interruption([&] {
            if (!std::exchange(is_first, false)) return true;
            // It has the turn, which a handler of a signal cannot get as well.
            of_handler = command(false);
            waits.set_value();
            is_to_end.get_future().wait();
            return true;
        });
        of_first = command(false);
    });
    const bool is_asked =
        waits.get_future().wait_for(std::chrono::seconds(60)) == std::future_status::ready;
    if (is_asked) {
        const Interruption interruption([] { return true; });
        of_second = command(false);  // waits for the turn
    }
    is_to_end.set_value();
    first.join();
    REQUIRE(is_asked);
    CHECK(of_first == EINTR);
    CHECK(of_handler == ETIMEDOUT);
    CHECK(of_second == EINTR);
    CHECK_FALSE(table.is_stuck());
    CHECK_FALSE(table.has_ended());
    ::kill(table.pid(), SIGKILL);
}
