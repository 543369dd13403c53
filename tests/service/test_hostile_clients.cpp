// Clients that mean harm, or are broken: they get what they deserve, and nobody else notices.
#include <fcntl.h>
#include <fmt/format.h>
#include <poll.h>
#include <signal.h>
#include <sys/mman.h>
#include <sys/socket.h>
#include <unistd.h>

#include "service/attacked_service.hpp"
#include "support/catch.hpp"
#include "support/service.hpp"

using namespace warmfork;

namespace {

Descriptor memfd_of(std::size_t size, int seals) {
    Descriptor memfd(::memfd_create("attack", MFD_CLOEXEC | MFD_ALLOW_SEALING));
    if (::ftruncate(memfd.get(), static_cast<off_t>(size)) < 0) throw std::runtime_error("memfd");
    if (seals) ::fcntl(memfd.get(), F_ADD_SEALS, seals);
    return memfd;
}

constexpr int kAllSeals = F_SEAL_SHRINK | F_SEAL_GROW | F_SEAL_WRITE | F_SEAL_SEAL;

}  // namespace

TEST_CASE("Garbage is hung up on") {
    AttackedService attacked;
    for (unsigned round = 0; round < 50; ++round)
        for (bool says_hello : {false, true}) {
            RawClient client(attacked.service.socket(), says_hello);
            client.send_bytes(random_bytes(1 + round * 37, round));
            REQUIRE(client.is_hung_up());
        }
}

TEST_CASE("Bodies of garbage behind a right header do no harm") {
    AttackedService attacked;
    for (unsigned round = 0; round < 300; ++round) {
        RawClient client(attacked.service.socket());
        const auto kind = static_cast<ServiceKind>(round % 10);
        client.send(kind, round, random_bytes(round % 90, round));
    }
}

TEST_CASE("Questions for a linked command that is none are refused, and many fill no memory") {
    AttackedService attacked;
    RawClient client(attacked.service.socket());
    const auto ask = [&](std::uint64_t id, std::span<const std::byte> command) {
        std::vector<std::byte> body = FieldWriter().text("link").text("tool").bytes();
        body.insert(body.end(), command.begin(), command.end());
        client.send(ServiceKind::manage, id, body);
        ServiceMessage answer;
        CHECK(client.receive(answer) == 0);
        CHECK(answer.kind == ServiceKind::refused);
    };
    for (unsigned round = 1; round < 100; ++round) ask(round, random_bytes(1 + round, round));
    for (int round = 0; round < 1000; ++round)
        ask(1, write_body(LinkedCommand{"/tmp/none/python3", "/", {fmt::format("/{}", round)}}));
    // One that is known by now is named, and nothing is started before somebody wants its child.
    const auto known = write_body(LinkedCommand{"/tmp/none/python3", "/", {"/999"}});
    std::vector<std::byte> body = FieldWriter().text("link").text("tool").bytes();
    body.insert(body.end(), known.begin(), known.end());
    client.send(ServiceKind::manage, 1, body);
    ServiceMessage answer;
    CHECK(client.receive(answer) == 0);
    CHECK(answer.kind == ServiceKind::managed);
}

TEST_CASE("Who says nothing is hung up on in time, also across a reload", "[slow]") {
    AttackedService attacked;
    RawClient silent(attacked.service.socket(), false);
    attacked.service.signal(SIGHUP);
    REQUIRE(attacked.service.has_said("READY=1"));
    REQUIRE(attacked.service.has_logged("goes on with"));
    pollfd polled{silent.socket(), POLLIN, 0};
    REQUIRE(::poll(&polled, 1, 60'000) == 1);
    CHECK(silent.is_hung_up());
    CHECK(attacked.service.has_logged("it did not say hello"));
}

TEST_CASE("Half a hello, and a hello that is not the first word, are hung up on") {
    AttackedService attacked;
    const auto hello =
        message_of(header_of(ServiceKind::hello, 8), FieldWriter().number(1).bytes());
    for (std::size_t size : {1u, 12u, 23u, 24u, 31u}) {
        RawClient client(attacked.service.socket(), false);
        client.send_bytes(std::span(hello).first(size));
        CHECK(client.is_hung_up());
    }
    RawClient early(attacked.service.socket(), false);
    early.send(ServiceKind::find, 1, FieldWriter().text("probe").bytes());
    CHECK(early.is_hung_up());
    RawClient twice(attacked.service.socket());
    twice.send(ServiceKind::hello, 0, FieldWriter().number(1).bytes());
    CHECK(twice.is_hung_up());
}

TEST_CASE("Another version is told so, and another magic number is hung up on") {
    AttackedService attacked;
    ServiceHeader header = header_of(ServiceKind::hello, 0);
    header.version = kServiceVersion + 1;
    RawClient newer(attacked.service.socket(), false);
    newer.send_bytes(message_of(header));
    ServiceMessage refused;
    REQUIRE(newer.receive(ServiceKind::refused, refused) == 0);
    CHECK(read_refusal(refused.body)->error_number == EPROTONOSUPPORT);
    CHECK(newer.is_hung_up());
    header = header_of(ServiceKind::hello, 0);
    header.magic ^= 1;
    RawClient stranger(attacked.service.socket(), false);
    stranger.send_bytes(message_of(header));
    CHECK(stranger.is_hung_up());
}

TEST_CASE("Lengths that lie are hung up on") {
    AttackedService attacked;
    const std::uint64_t huge = ~std::uint64_t{0};
    const auto lies = {
        FieldWriter().number(huge).bytes(),                                    // the name
        FieldWriter().text("probe").number(1).number(1).number(huge).bytes(),  // the options
        FieldWriter()
            .text("probe")
            .number(1)
            .number(huge)
            .texts(std::vector<std::string>())
            .bytes(),
        FieldWriter().text("probe").number(1).number(0).bytes(),
    };
    for (const auto& body : lies) {
        RawClient client(attacked.service.socket());
        client.send(ServiceKind::lease, 1, body);
        CHECK(client.is_hung_up());
    }
    for (std::uint32_t size : {1u, 100u, 40'000u, ~0u}) {
        RawClient client(attacked.service.socket());
        client.send_bytes(message_of(header_of(ServiceKind::find, size)));
        CHECK(client.is_hung_up());
    }
}

TEST_CASE("Descriptors without end are hung up on, and closed") {
    AttackedService attacked;
    const Descriptor null(::open("/dev/null", O_RDWR | O_CLOEXEC));
    const std::vector<int> many(kMaximumMessageDescriptors, null.get());
    const auto body = FieldWriter().text("probe").bytes();
    const auto message =
        message_of(header_of(ServiceKind::find, static_cast<std::uint32_t>(body.size())), body);
    for (int round = 0; round < 30; ++round) {
        RawClient client(attacked.service.socket());
        client.send_bytes(message, many);
        CHECK(client.is_hung_up());
    }
}

TEST_CASE("Descriptors of an empty message are closed") {
    AttackedService attacked;
    const Descriptor null(::open("/dev/null", O_RDWR | O_CLOEXEC));
    const int four[] = {null.get(), null.get(), null.get(), null.get()};
    for (int round = 0; round < 30; ++round) {
        RawClient client(attacked.service.socket());
        client.send_bytes({}, four);
        REQUIRE(client.is_hung_up());
    }
}

TEST_CASE("Who has not said hello cannot send descriptors, where the kernel can forbid it") {
    TestService service;
    RawClient client(service.socket(), false);
    const int yes = 1;
    const Descriptor probe(::socket(AF_UNIX, SOCK_SEQPACKET | SOCK_CLOEXEC, 0));
    if (::setsockopt(probe.get(), SOL_SOCKET, 83, &yes, sizeof yes) < 0) return;
    const int number = probe.get();
    CHECK(client.send_bytes(random_bytes(30, 1), std::span(&number, 1)) == EPERM);
}

TEST_CASE("A body in a memfd must be sealed and as long as it says") {
    AttackedService attacked;
    constexpr std::uint32_t size = 100'000;
    struct {
        std::uint32_t said;
        Descriptor memfd;
    } const attacks[] = {
        {size, memfd_of(size, 0)},
        {size, memfd_of(size, F_SEAL_WRITE)},
        {size, memfd_of(size, F_SEAL_SHRINK)},
        {size, memfd_of(size - 1, kAllSeals)},
        {size, memfd_of(size + 1, kAllSeals)},
        {size, memfd_of(std::size_t{1} << 40, kAllSeals)},
        {kMaximumBodySize + 1, memfd_of(kMaximumBodySize + 1, kAllSeals)},
        {size, memfd_of(size, kAllSeals)},  // right, but what is in it is no request
        {size, Descriptor(::open("/dev/zero", O_RDWR | O_CLOEXEC))},
        {size, Descriptor()},
    };
    for (const auto& attack : attacks) {
        RawClient client(attacked.service.socket());
        const int number = attack.memfd.get();
        client.send_bytes(message_of(header_of(ServiceKind::lease, attack.said)),
                          attack.memfd ? std::span(&number, 1) : std::span<const int>());
        CHECK(client.is_hung_up());
    }
}
