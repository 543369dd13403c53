#include "support/catch.hpp"
#include "template/spare_policy.hpp"

using warmfork::SparePolicy;
using namespace std::chrono_literals;

TEST_CASE("A spawn that finds none parked doubles the number of spares, up to the most") {
    SparePolicy policy;
    const SparePolicy::Time now{};
    policy.set_range(1, 8);
    const std::uint32_t before = policy.wanted();
    policy.none_was_parked(now);
    CHECK(policy.wanted() == 2 * before);
    for (int i = 0; i < 10; ++i) policy.none_was_parked(now);
    CHECK(policy.wanted() == 8);
}

TEST_CASE("An idle template gives its spares up one by one, down to the least") {
    SparePolicy policy;
    SparePolicy::Time now = SparePolicy::Clock::now();
    policy.set_range(1, 8);
    for (int i = 0; i < 3; ++i) policy.none_was_parked(now);
    for (std::uint32_t wanted : {7u, 6u, 5u, 4u, 3u, 2u, 1u, 1u}) {
        now += SparePolicy::kIdlePeriod + 1ms;
        policy.tick(now);
        CHECK(policy.wanted() == wanted);
    }
    CHECK_FALSE(policy.next_change(1, now));  // nothing more to come: the template sleeps for good
}

TEST_CASE("Use keeps spares alive") {
    SparePolicy policy;
    SparePolicy::Time now = SparePolicy::Clock::now();
    policy.set_range(1, 8);
    policy.none_was_parked(now);
    const std::uint32_t wanted = policy.wanted();
    for (int i = 0; i < 5; ++i) {
        now += SparePolicy::kIdlePeriod / 2;
        policy.spare_taken(now);
        policy.tick(now);
    }
    CHECK(policy.wanted() == wanted);
}

TEST_CASE("A fixed number stays fixed, none stays none") {
    const SparePolicy::Time now = SparePolicy::Clock::now();
    for (std::uint32_t fixed : {0u, 3u, 1000u}) {
        SparePolicy policy;
        policy.set_range(fixed, fixed);
        policy.none_was_parked(now);
        policy.tick(now + 1h);
        CHECK(policy.wanted() == fixed);
    }
}

TEST_CASE("Spares that die are replaced ever more slowly, until one is used") {
    SparePolicy policy;
    SparePolicy::Time now = SparePolicy::Clock::now();
    policy.spare_failed(now);
    CHECK_FALSE(policy.may_fork(now));
    CHECK(policy.may_fork(now + SparePolicy::kFirstDelay));
    CHECK(policy.next_change(0, now) == now + SparePolicy::kFirstDelay);
    for (int i = 0; i < 20; ++i) policy.spare_failed(now);
    CHECK_FALSE(policy.may_fork(now + SparePolicy::kLongestDelay - 1ms));
    CHECK(policy.may_fork(now + SparePolicy::kLongestDelay));
    policy.spare_taken(now);
    policy.spare_failed(now);
    CHECK(policy.may_fork(now + SparePolicy::kFirstDelay));
}
