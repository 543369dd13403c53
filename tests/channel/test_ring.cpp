#include <cstring>
#include <random>
#include <thread>

#include "channel/ring.hpp"
#include "support/catch.hpp"

using namespace warmfork;

namespace {

struct Ring {
    RingHeader header{};
    std::vector<std::byte> bytes = std::vector<std::byte>(kCompletionRingSize);
    RingWriter writer{header, bytes};
    RingReader reader{header, bytes};
};

FrameHeader header_with(std::uint64_t id) {
    FrameHeader header{};
    header.kind = FrameKind::report;
    header.id = id;
    return header;
}

std::vector<std::byte> payload_of(std::size_t size, std::uint64_t seed) {
    std::vector<std::byte> payload(size);
    for (std::size_t i = 0; i < size; ++i) payload[i] = static_cast<std::byte>(seed + i);
    return payload;
}

}  // namespace

TEST_CASE("Frames come out as they went in, also across the end of the ring") {
    Ring ring;
    std::vector<std::byte> payload;
    for (std::uint64_t id = 1; id < 2000; ++id) {
        const auto sent = payload_of(id * 37 % 5000, id);
        REQUIRE(ring.writer.push(header_with(id), sent) == 0);
        FrameHeader header;
        REQUIRE(ring.reader.pop(header, payload) == Pop::frame);
        REQUIRE(header.id == id);
        REQUIRE(payload == sent);
        REQUIRE(ring.reader.pop(header, payload) == Pop::empty);
    }
}

TEST_CASE("A full ring says EAGAIN, and takes more when something was read") {
    Ring ring;
    const auto sent = payload_of(1000, 0);
    std::uint64_t pushed = 0;
    while (ring.writer.push(header_with(pushed + 1), sent) == 0) ++pushed;
    CHECK(pushed == kCompletionRingSize / 1032);
    CHECK(ring.writer.push(header_with(0), sent) == EAGAIN);
    CHECK_FALSE(ring.writer.has_room(1000));
    FrameHeader header;
    std::vector<std::byte> payload;
    REQUIRE(ring.reader.pop(header, payload) == Pop::frame);
    CHECK(header.id == 1);
    CHECK(ring.writer.has_room(1000));
    CHECK(ring.writer.push(header_with(0), sent) == 0);
}

TEST_CASE("A payload over the limit is refused") {
    Ring ring;
    CHECK(ring.writer.push(header_with(1), payload_of(kMaximumFramePayload + 1, 0)) == EMSGSIZE);
}

TEST_CASE("Two threads lose nothing and reorder nothing") {
    Ring ring;
    constexpr std::uint64_t kFrames = 200'000;
    std::thread producer([&] {
        for (std::uint64_t id = 1; id <= kFrames;)
            if (ring.writer.push(header_with(id), payload_of(id % 64, id)) == 0)
                ++id;
            else
                std::this_thread::yield();
    });
    FrameHeader header;
    std::vector<std::byte> payload;
    std::uint64_t expected = 1;
    bool right = true;
    while (expected <= kFrames) {
        if (ring.reader.pop(header, payload) != Pop::frame) {
            std::this_thread::yield();
            continue;
        }
        right = right && header.id == expected && payload == payload_of(expected % 64, expected);
        ++expected;
    }
    producer.join();
    CHECK(right);
}

TEST_CASE("A peer that scribbles over its index or its frames is found out") {
    Ring ring;
    FrameHeader header;
    std::vector<std::byte> payload;
    SECTION("a tail far ahead") {
        ring.header.tail.store(kCompletionRingSize + 8);
        CHECK(ring.reader.pop(header, payload) == Pop::broken);
    }
    SECTION("a tail behind the head") {
        REQUIRE(ring.writer.push(header_with(1), {}) == 0);
        REQUIRE(ring.reader.pop(header, payload) == Pop::frame);
        ring.header.tail.store(0);
        CHECK(ring.reader.pop(header, payload) == Pop::broken);
    }
    SECTION("less than a frame") {
        ring.header.tail.store(8);
        CHECK(ring.reader.pop(header, payload) == Pop::broken);
    }
    SECTION("a frame that claims more than there is") {
        REQUIRE(ring.writer.push(header_with(1), {}) == 0);
        const std::uint32_t size = 64;
        std::memcpy(ring.bytes.data(), &size, sizeof size);
        CHECK(ring.reader.pop(header, payload) == Pop::broken);
    }
    SECTION("a frame over the limit") {
        ring.header.tail.store(kCompletionRingSize);
        const std::uint32_t size = 0xfffffff0;
        std::memcpy(ring.bytes.data(), &size, sizeof size);
        CHECK(ring.reader.pop(header, payload) == Pop::broken);
    }
    SECTION("a head that was never reached") {
        ring.header.head.store(99);
        CHECK(ring.writer.push(header_with(1), {}) == EPROTO);
    }
}

TEST_CASE("Random bytes in a ring are never read outside of it") {
    std::mt19937_64 random(7);
    for (int round = 0; round < 300; ++round) {
        Ring ring;
        for (std::size_t at = 0; at < 4096; at += 8) {
            const std::uint64_t noise = random() >> (round % 60);
            std::memcpy(ring.bytes.data() + at, &noise, sizeof noise);
        }
        ring.header.tail.store(random() % (2 * kCompletionRingSize));
        FrameHeader header;
        std::vector<std::byte> payload;
        for (int pops = 0; pops < 100 && ring.reader.pop(header, payload) == Pop::frame; ++pops)
            CHECK(payload.size() <= kMaximumFramePayload);
    }
}

TEST_CASE("A sleeper is rung for a frame, and one that waits for room for a pop") {
    Ring ring;
    CHECK_FALSE(ring.writer.peer_sleeps());
    ring.reader.going_to_sleep(WakeFor::frames);
    CHECK(ring.writer.peer_sleeps());
    CHECK_FALSE(ring.writer.peer_waits_for_room());
    ring.reader.going_to_sleep(WakeFor::frames_and_room);
    CHECK(ring.writer.peer_sleeps());
    CHECK(ring.writer.peer_waits_for_room());
    ring.reader.awake();
    CHECK_FALSE(ring.writer.peer_sleeps());
}
