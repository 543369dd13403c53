// What comes of a request by the phase of its image: the whole table, without a process.
#include "owner/image_phase.hpp"
#include "support/catch.hpp"

namespace {

using warmfork::ImagePhase;
using warmfork::ImageStep;
using warmfork::ImageTimes;
using warmfork::kImageRetryPeriod;
using warmfork::next_step;
using warmfork::Patience;
using warmfork::phase_at;

constexpr ImagePhase kPhases[] = {
    ImagePhase::absent,        ImagePhase::put_off,    ImagePhase::failed, ImagePhase::no_template,
    ImagePhase::awaiting_base, ImagePhase::preloading, ImagePhase::late,   ImagePhase::ready};

bool waits(ImageStep step) {
    return step == ImageStep::wait || step == ImageStep::weigh ||
           step == ImageStep::wait_for_time || step == ImageStep::say_not_yet;
}

}  // namespace

TEST_CASE("Each phase of an image has its step for each kind of request") {
    using enum ImageStep;
    struct Row {
        ImagePhase phase;
        ImageStep for_none, for_first_start, for_insists;
    };
    const Row rows[] = {
        {ImagePhase::absent, start, start, start},
        {ImagePhase::put_off, go_cold, wait_for_time, wait_for_time},
        {ImagePhase::failed, go_cold, go_cold, go_cold},
        {ImagePhase::no_template, refuse, refuse, refuse},
        {ImagePhase::awaiting_base, go_cold, say_not_yet, say_not_yet},
        {ImagePhase::preloading, go_cold, weigh, wait},
        {ImagePhase::late, go_cold, go_cold, wait},
        {ImagePhase::ready, serve, serve, serve},
    };
    for (const Row& row : rows) {
        INFO("phase " << static_cast<int>(row.phase));
        CHECK(next_step(row.phase, Patience::none) == row.for_none);
        CHECK(next_step(row.phase, Patience::first_start) == row.for_first_start);
        CHECK(next_step(row.phase, Patience::insists) == row.for_insists);
    }
}

TEST_CASE("A request that has a cold child to go to waits for the first start only") {
    for (const ImagePhase phase : kPhases) {
        INFO("phase " << static_cast<int>(phase));
        CHECK_FALSE(waits(next_step(phase, Patience::none)));
        // One that insists waits wherever another one may.
        if (waits(next_step(phase, Patience::first_start)))
            CHECK(waits(next_step(phase, Patience::insists)));
    }
}

TEST_CASE("An image without a process is started when its time has come") {
    const ImageTimes::Time now = std::chrono::steady_clock::now();
    const auto soon = now + std::chrono::seconds(1);
    for (const bool insists : {false, true})
        for (const ImagePhase known :
             {ImagePhase::absent, ImagePhase::put_off, ImagePhase::awaiting_base}) {
            CHECK(phase_at(now, known, {now, {}}, insists) == ImagePhase::absent);
            CHECK(phase_at(now, known, {soon, {}}, insists) == ImagePhase::put_off);
        }
}

TEST_CASE("An image that has failed is tried again after a while, or for who insists") {
    const ImageTimes::Time now = std::chrono::steady_clock::now();
    const ImageTimes lately{{}, now - kImageRetryPeriod + std::chrono::seconds(1)};
    const ImageTimes long_ago{{}, now - kImageRetryPeriod};
    CHECK(phase_at(now, ImagePhase::failed, lately, false) == ImagePhase::failed);
    CHECK(phase_at(now, ImagePhase::failed, lately, true) == ImagePhase::absent);
    CHECK(phase_at(now, ImagePhase::failed, long_ago, false) == ImagePhase::absent);
    const ImageTimes also_put_off{now + std::chrono::seconds(1), lately.failed_at};
    CHECK(phase_at(now, ImagePhase::failed, also_put_off, true) == ImagePhase::put_off);
}

TEST_CASE("What is no template is not started again before its time, whoever asks") {
    const ImageTimes::Time now = std::chrono::steady_clock::now();
    for (const bool insists : {false, true}) {
        CHECK(phase_at(now, ImagePhase::no_template, {now + std::chrono::seconds(1), {}},
                       insists) == ImagePhase::no_template);
        CHECK(phase_at(now, ImagePhase::no_template, {now, {}}, insists) == ImagePhase::absent);
    }
}

TEST_CASE("Time alone changes nothing of an image that has a process") {
    const ImageTimes::Time now = std::chrono::steady_clock::now();
    for (const ImagePhase known : {ImagePhase::preloading, ImagePhase::late, ImagePhase::ready})
        CHECK(phase_at(now, known, {now + std::chrono::seconds(1), now}, false) == known);
}
