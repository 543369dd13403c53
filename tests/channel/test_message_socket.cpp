#include <sys/mman.h>
#include <sys/socket.h>

#include <array>

#include "channel/message_socket.hpp"
#include "support/catch.hpp"

using namespace warmfork;

TEST_CASE("A message arrives whole, with its descriptors close-on-exec") {
    Descriptor near, far;
    REQUIRE(make_message_pair(near, far) == 0);
    const std::uint64_t head = 5, body = 6;
    const int sent[] = {near.get(), far.get()};
    REQUIRE(send_message(near.get(), bytes_of(head), bytes_of(body), sent, 0) == 0);
    std::array<std::uint64_t, 2> got{};
    std::array<int, 4> numbers;
    ReceivedMessage received;
    REQUIRE(receive_message(far.get(), std::as_writable_bytes(std::span(got)), numbers, 0,
                            received) == 0);
    CHECK(got[0] == 5);
    CHECK(got[1] == 6);
    REQUIRE(received.descriptor_count == 2);
    for (std::size_t i = 0; i < 2; ++i) {
        const Descriptor mine(numbers[i]);
        CHECK(::fcntl(mine.get(), F_GETFD) == FD_CLOEXEC);
    }
}

TEST_CASE("More descriptors than expected are closed, not leaked") {
    Descriptor near, far;
    REQUIRE(make_message_pair(near, far) == 0);
    const int head = 0;
    const std::vector<int> sent(20, near.get());
    REQUIRE(send_message(near.get(), bytes_of(head), {}, sent, 0) == 0);
    int got;
    ReceivedMessage received;
    REQUIRE(receive_message(far.get(), std::as_writable_bytes(std::span(&got, 1)), {}, 0,
                            received) == 0);
    CHECK(received.descriptor_count == 0);
}

TEST_CASE("A peer that has gone is an error, not a signal") {
    Descriptor near, far;
    REQUIRE(make_message_pair(near, far) == 0);
    far.reset();
    const int head = 0;
    CHECK(send_message(near.get(), bytes_of(head), {}, {}, 0) == EPIPE);
}

TEST_CASE("A memfd is read only if nobody can change it any more") {
    const std::array<std::byte, 3> bytes{std::byte{1}, std::byte{2}, std::byte{3}};
    std::array<std::byte, 8> buffer;
    std::size_t size = 0;
    const Descriptor sealed = make_sealed_memfd(bytes);
    REQUIRE(read_sealed_memfd(sealed.get(), buffer, size) == 0);
    CHECK(size == 3);
    CHECK(buffer[2] == std::byte{3});
    CHECK(read_sealed_memfd(sealed.get(), std::span(buffer).first(2), size) == EMSGSIZE);
    const Descriptor open(::memfd_create("test", MFD_CLOEXEC | MFD_ALLOW_SEALING));
    CHECK(read_sealed_memfd(open.get(), buffer, size) == EPERM);
}

TEST_CASE("What a peer said before it closed is heard, whatever it has left unread") {
    Descriptor near, far;
    REQUIRE(make_message_pair(near, far) == 0);
    const int word = 5, unread = 6;
    REQUIRE(send_message(near.get(), bytes_of(unread), {}, {}, 0) == 0);
    REQUIRE(send_message(far.get(), bytes_of(word), {}, {}, 0) == 0);
    far.reset();
    int got = 0;
    ReceivedMessage received;
    const auto buffer = std::as_writable_bytes(std::span(&got, 1));
    REQUIRE(receive_message(near.get(), buffer, {}, 0, received) == 0);
    CHECK(got == word);
    REQUIRE(receive_message(near.get(), buffer, {}, 0, received) == 0);
    CHECK(received.size == 0);
}
