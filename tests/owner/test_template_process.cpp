// One template as its owner holds it, at times that no test waits for.
#include "owner/template_process.hpp"

#include <poll.h>
#include <signal.h>
#include <sys/wait.h>

#include "owner/cold.hpp"
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
