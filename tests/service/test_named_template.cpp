// How long the service lets a client wait for an image.
#include "service/named_template.hpp"

#include "owner/image_source.hpp"
#include "support/catch.hpp"
#include "support/processes.hpp"

using namespace warmfork;
using namespace warmfork::service;

namespace {

/// An ask of a client, which was made `before` this moment.
NamedTemplate::Ask ask_of(std::uint64_t client, NamedTemplate::Clock::duration before,
                          std::uint64_t flags) {
    NamedTemplate::Ask ask;
    ask.client = client;
    ask.since = NamedTemplate::Clock::now() - before;
    ask.wanted.name = "probe";
    ask.wanted.flags = flags;
    ask.wanted.count = 1;
    for (char** variable = environ; *variable; ++variable)
        ask.wanted.environment.emplace_back(*variable);
    return ask;
}

/// A template that never becomes ready.
NamedTemplate::Definition unending() {
    NamedTemplate::Definition definition;
    definition.name = "probe";
    definition.images.program = WARMFORK_PROBE;
    definition.images.arguments = {"serve", "hang"};
    return definition;
}

}  // namespace

TEST_CASE("Who waits for a template that never becomes ready is refused with the reason") {
    NamedTemplate named(unending());
    named.add(ask_of(1, kWarmPatience, kLeaseMayWait));
    named.add(ask_of(2, kWarmPatience / 2, kLeaseMayWait));
    const std::vector<NamedTemplate::Answer> answers = named.serve();
    REQUIRE(answers.size() == 1);
    CHECK(answers[0].ask->client == 1);
    CHECK(answers[0].is_last);
    CHECK(answers[0].refusal.error_number == ETIMEDOUT);
    CHECK(answers[0].refusal.reason == WARMFORK_REASON_UNRESPONSIVE);
    CHECK(answers[0].refusal.text.find("is not ready") != std::string::npos);
    CHECK(named.asks().size() == 1);
}

TEST_CASE("Who may be cold waits for a template whose base never becomes ready as for any other") {
    NamedTemplate::Definition layer = unending();
    layer.images.is_python = true;
    layer.images.take_foundation = [](const Selection&, ImageSet::Foundation&, ColdReason&) {
        return Outcome(Failure{Stage::launch, ETIMEDOUT, 0, "the base is not ready yet"});
    };
    NamedTemplate named(std::move(layer));
    named.add(ask_of(1, TemplateProcess::kReadyPatience, 0));
    named.add(ask_of(2, TemplateProcess::kReadyPatience, kLeaseMayWait));
    const std::vector<NamedTemplate::Answer> answers = named.serve();
    REQUIRE(answers.size() == 1);
    CHECK(answers[0].ask->client == 1);
    CHECK(answers[0].refusal.reason == WARMFORK_REASON_UNRESPONSIVE);
    CHECK(named.asks().size() == 1);
}
