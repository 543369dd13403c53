// What becomes of a spawn whose image never becomes ready.
#include <unistd.h>

#include "owner/embedded_source.hpp"
#include "support/catch.hpp"
#include "support/processes.hpp"

using namespace warmfork;

TEST_CASE("Who waits for an image that never becomes ready is told in the end why he may be cold") {
    ImageSet::Definition definition;
    definition.program = WARMFORK_PROBE;
    definition.arguments = {"serve", "hang"};
    EmbeddedSource source(std::move(definition));
    std::vector<char*> environment;
    for (char** variable = environ; *variable; ++variable) environment.push_back(*variable);
    const Selection selection{{}, false, environment};
    // The spawn began so long ago that its time is up.
    Wish wish{selection, Lifetime::owner, WaitClock::now() - kWarmPatience};
    wish.may_wait = true;
    std::unique_ptr<ChosenImage> image;
    ColdReason cold;
    const Outcome failure = source.choose(wish, image, cold);
    REQUIRE(failure);
    CHECK(failure->error_number == ETIMEDOUT);
    CHECK(cold.reason == WARMFORK_REASON_UNRESPONSIVE);
    CHECK_FALSE(image);
}
