#include "protocol/handover.hpp"
#include "support/catch.hpp"

using namespace warmfork;

namespace {

Handover example_handover() {
    Handover handover{.generation = 3,
                      .last_client = 7,
                      .last_child = 9,
                      .listener = {4},
                      .lock = {5},
                      .path = "/run/socket",
                      .keeper = {-1}};
    handover.clients.push_back(
        {7, {10}, 1000, 4321, {11}, "make", 1, 12, {{20, 30, "body", {{12}, {13}}}}});
    handover.children.push_back({9, 4322, {14}, 7, 1, 0, "web", {15}, {16}, 31});
    handover.templates.push_back({"web", {{7, 32, 100, 1, "wanted", {{17}}}}});
    handover.untold = {9};
    handover.sight = {18};
    handover.retired_sights = {"anon_inode:[x]"};
    handover.waits = {{7, 32, 1'000'000}};
    return handover;
}

/// The bytes of version 1, written one by one: what a service of that version leaves.
FieldWriter example_bytes() {
    FieldWriter bytes;
    bytes.number(kHandoverVersion).number(3).number(7).number(9).number(4).number(5);
    bytes.text("/run/socket").number(~std::uint64_t{0});
    bytes.number(1).number(7).number(10).number(1000).number(4321).number(11).text("make");
    bytes.number(1).number(12).number(1).number(20).number(30).text("body");
    bytes.number(2).number(12).number(13);
    bytes.number(1).number(9).number(4322).number(14).number(7).number(1).number(0).text("web");
    bytes.number(15).number(16).number(31);
    bytes.number(1).text("web").number(1).number(7).number(32).number(100).number(1);
    bytes.text("wanted").number(1).number(17);
    bytes.number(1).number(9);
    return bytes;
}

}  // namespace

TEST_CASE("A handover has the bytes of its version") {
    const HandoverWriter written(example_handover());
    FieldWriter expected = example_bytes();
    expected.number(18).texts(std::vector<std::string>{"anon_inode:[x]"});
    expected.number(1).number(7).number(32).number(1'000'000);
    REQUIRE(written.bytes() == expected.bytes());
    REQUIRE(written.descriptors() == std::vector{4, 5, 10, 11, 12, 13, 14, 15, 16, 17, 18});
}

TEST_CASE("A handover is read as it was written") {
    const HandoverWriter written(example_handover());
    Handover read;
    REQUIRE(HandoverReader(written.bytes()).read(read));
    REQUIRE(read.is_whole);
    REQUIRE(HandoverWriter(read).bytes() == written.bytes());
    REQUIRE(read.keeper.number == -1);
    REQUIRE(read.clients.at(0).waiting.at(0).body == "body");
    REQUIRE(read.children.at(0).template_name == "web");
    REQUIRE(read.templates.at(0).asks.at(0).descriptors.at(0).number == 17);
}

TEST_CASE("A handover of a service that had no sight is whole") {
    Handover read;
    REQUIRE(HandoverReader(example_bytes().bytes()).read(read));
    REQUIRE(read.is_whole);
    REQUIRE(read.untold == std::vector<std::uint64_t>{9});
    REQUIRE(read.sight.number == -1);
    REQUIRE(read.waits.empty());
}

TEST_CASE("A handover of a service that did not say since when it waits is whole") {
    FieldWriter bytes = example_bytes();
    bytes.number(18).texts(std::vector<std::string>{"anon_inode:[x]"});
    Handover read;
    REQUIRE(HandoverReader(bytes.bytes()).read(read));
    REQUIRE(read.is_whole);
    REQUIRE(read.sight.number == 18);
    REQUIRE(read.waits.empty());
}

TEST_CASE("A handover that is cut short anywhere is read to there, and says so") {
    const std::vector<std::byte> bytes = example_bytes().bytes();
    for (std::size_t size = sizeof kHandoverVersion; size < bytes.size(); ++size) {
        Handover read;
        REQUIRE(HandoverReader(std::span(bytes).first(size)).read(read));
        REQUIRE_FALSE(read.is_whole);
        REQUIRE(read.clients.size() <= 1);
        // No descriptor is taken for one that was not written: 0 least of all.
        const HandoverWriter again(read);
        for (int number : again.descriptors()) REQUIRE(number >= 4);
    }
}

TEST_CASE("A handover of another version is not read") {
    Handover read;
    REQUIRE_FALSE(HandoverReader(FieldWriter().number(kHandoverVersion + 1).bytes()).read(read));
    REQUIRE_FALSE(HandoverReader({}).read(read));
}
