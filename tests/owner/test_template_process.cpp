// One template as its owner holds it, at times that no test waits for.
#include "owner/template_process.hpp"

#include "owner/cold.hpp"
#include "support/catch.hpp"
#include "support/processes.hpp"

using namespace warmfork;

namespace {

/// A template of warmfork-probe that keeps one spare.
LaunchedTemplate launch_probe() {
    LaunchPlan plan;
    plan.arguments = {WARMFORK_PROBE, "serve"};
    plan.spares_least = plan.spares_most = 1;
    LaunchedTemplate launched;
    const Outcome failure = launch_template(plan, launched);
    REQUIRE_FALSE(failure);
    return launched;
}

}  // namespace

TEST_CASE("A spare that has grown old is not handed off, and a new one takes its place") {
    TemplateProcess table(launch_probe());
    const auto wait_parked = [&] {
        const Outcome failure = table.wait_parked(1, WaitClock::now() + std::chrono::seconds(60));
        REQUIRE_FALSE(failure);
    };
    wait_parked();
    const std::vector<int> old = spares();
    REQUIRE(old.size() == 1);
    const Descriptor end_of_old = open_pidfd(old[0]);
    CHECK_FALSE(table.take_spare(Lifetime::owner, WaitClock::now() + kOldestSpare));
    table.wake_to_refill();
    wait_parked();
    const std::optional<Born> young =
        table.take_spare(Lifetime::owner, WaitClock::now() + kOldestSpare / 2);
    REQUIRE(young);
    CHECK(young->pid != old[0]);
    CHECK(has_ended(end_of_old));
    end_child(young->identity());
}
