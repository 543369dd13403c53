// Clients that mean harm, or are broken: they get what they deserve, and nobody else notices.
#include <arpa/inet.h>
#include <fcntl.h>
#include <fmt/format.h>
#include <netinet/in.h>
#include <poll.h>
#include <signal.h>
#include <sys/mman.h>
#include <sys/socket.h>
#include <sys/wait.h>
#include <unistd.h>

#include <cstring>
#include <random>

#include "channel/message_socket.hpp"
#include "support/catch.hpp"
#include "support/service.hpp"

using namespace warmfork;

namespace {

/// A service that is at rest, to be at rest again after an attack.
class AttackedService {
  public:
    AttackedService()
        : service([] {
              TestService::Settings settings;
              settings.templates["probe"] = probe_definition("spares = 2\nlimits.children = 40\n");
              return settings;
          }()),
          watcher_(service.socket()) {
        spawn();
        rest();
        descriptors_ = service.descriptors();
    }
    ~AttackedService() {
        CHECK(spawn() == 7);
        rest();
        for (int tries = 0; tries < 2000 && service.descriptors() > descriptors_; ++tries)
            ::poll(nullptr, 0, 5);
        CHECK(service.descriptors() <= descriptors_);
        for (int child : children_of(service.pid())) CHECK(is_running(child));
    }
    int spawn() {
        return as_client(service, [] {
            Template table = Template::connect("probe", WARMFORK_BACKEND_WARM);
            return WEXITSTATUS(table.spawn({WARMFORK_PROBE, "exit", "7"}).wait());
        });
    }

    TestService service;

  private:
    /// Until there are the template and its spares, all taken in, and nothing else.
    void rest() {
        std::vector<int> children;
        for (int tries = 0; tries < 2000; ++tries) {
            children = children_of(service.pid());
            if (children.size() == 3 && parked_spares(watcher_) == 2) return;
            ::poll(nullptr, 0, 5);
        }
        CHECK(children.size() == 3);
    }

    RawClient watcher_;
    std::size_t descriptors_ = 0;
};

std::vector<std::byte> random_bytes(std::size_t size, unsigned seed) {
    std::mt19937 source(seed);
    std::vector<std::byte> bytes(size);
    for (std::byte& byte : bytes) byte = static_cast<std::byte>(source());
    return bytes;
}

std::vector<std::byte> message_of(const ServiceHeader& header,
                                  std::span<const std::byte> body = {}) {
    std::vector<std::byte> bytes(sizeof header);
    std::memcpy(bytes.data(), &header, sizeof header);
    bytes.insert(bytes.end(), body.begin(), body.end());
    return bytes;
}

ServiceHeader header_of(ServiceKind kind, std::uint32_t size) {
    return {kServiceMagic, kServiceVersion, kind, 1, size, 0};
}

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

TEST_CASE("Who says nothing is hung up on in time, also across a reload") {
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

/// A TCP connection that nobody reads, full of data: closing the last descriptor of the one end
/// takes a minute.
class Lingering {
  public:
    Lingering() {
        const Descriptor listening(::socket(AF_INET, SOCK_STREAM | SOCK_CLOEXEC, 0));
        sockaddr_in address{};
        address.sin_family = AF_INET;
        address.sin_addr.s_addr = htonl(INADDR_LOOPBACK);
        socklen_t size = sizeof address;
        auto* const generic = reinterpret_cast<sockaddr*>(&address);
        near_ = Descriptor(::socket(AF_INET, SOCK_STREAM | SOCK_CLOEXEC, 0));
        if (::bind(listening.get(), generic, size) < 0 || ::listen(listening.get(), 1) < 0 ||
            ::getsockname(listening.get(), generic, &size) < 0 ||
            ::connect(near_.get(), generic, size) < 0)
            throw std::system_error(errno, std::generic_category(), "loopback");
        far_ = Descriptor(::accept4(listening.get(), nullptr, nullptr, SOCK_CLOEXEC));
        const std::vector<char> data(1 << 16);
        while (::send(near_.get(), data.data(), data.size(), MSG_DONTWAIT) > 0) {
        }
        const linger minute{1, 60};
        ::setsockopt(near_.get(), SOL_SOCKET, SO_LINGER, &minute, sizeof minute);
    }
    ~Lingering() {
        const linger off{0, 0};
        if (near_) ::setsockopt(near_.get(), SOL_SOCKET, SO_LINGER, &off, sizeof off);
    }
    Lingering(Lingering&&) = default;
    int get() const { return near_.get(); }
    /// Whoever has got it has the last one.
    void leave() {
        ::close(near_.get());
        near_ = Descriptor();
    }

  private:
    Descriptor near_, far_;
};

/// Sends it away behind what is there, in one message more, so that the service has the last of it.
void send_away(const TestService& service, RawClient& client, Lingering lingering,
               std::span<const std::byte> garbage, std::span<const std::byte> message) {
    service.signal(SIGSTOP);
    siginfo_t info{};
    REQUIRE(::waitid(P_PID, static_cast<id_t>(service.pid()), &info, WSTOPPED | WNOWAIT) == 0);
    if (!garbage.empty()) client.send_bytes(garbage);
    const int number = lingering.get();
    CHECK(client.send_bytes(message, std::span(&number, 1)) == 0);
    lingering.leave();
    service.signal(SIGCONT);
}

TEST_CASE("What takes a minute to be closed holds nobody up, and is let go of") {
    AttackedService attacked;
    const auto body = FieldWriter().text("probe").bytes();
    const auto message =
        message_of(header_of(ServiceKind::find, static_cast<std::uint32_t>(body.size())), body);
    RawClient client(attacked.service.socket());
    SECTION("in a right message") {
        send_away(attacked.service, client, Lingering(), {}, message);
        ServiceMessage found;
        CHECK(client.receive(ServiceKind::found, found) == 0);
    }
    SECTION("in what is no message") {
        send_away(attacked.service, client, Lingering(), {}, random_bytes(30, 1));
        CHECK(client.is_hung_up());
    }
    SECTION("in a message that is not read any more") {
        send_away(attacked.service, client, Lingering(), random_bytes(30, 1), message);
        CHECK(client.is_hung_up());
    }
    SECTION("for a command that is not run") {
        const auto run =
            message_of(header_of(ServiceKind::run, static_cast<std::uint32_t>(body.size())), body);
        send_away(attacked.service, client, Lingering(), {}, run);
        ServiceMessage refused;
        CHECK(client.receive(ServiceKind::refused, refused) == 0);
    }
    CHECK(attacked.spawn() == 7);
}

TEST_CASE("A reload does not wait for what takes a minute to be closed") {
    AttackedService attacked;
    RawClient client(attacked.service.socket());
    for (int i = 0; i < 100; ++i)
        send_away(attacked.service, client, Lingering(), {},
                  message_of(header_of(ServiceKind::find, 0)));
    attacked.service.signal(SIGHUP);
    CHECK(attacked.service.has_said("READY=1"));
    CHECK(attacked.spawn() == 7);
}

TEST_CASE("A stranger holds nobody up by what takes a minute to be closed") {
    if (::geteuid() != 0) return;
    TestService::Settings settings;
    settings.has_passed_socket = true;
    TestService service(std::move(settings));
    REQUIRE(service.is_ready());
    // As before Linux 6.16, where descriptors cannot be kept from being sent.
    const int yes = 1;
    ::setsockopt(service.listening(), SOL_SOCKET, 83, &yes, sizeof yes);
    for (int i = 0; i < 10; ++i) {
        service.signal(SIGSTOP);
        REQUIRE(::seteuid(65534) == 0);
        RawClient stranger(service.socket(), false);
        REQUIRE(::seteuid(0) == 0);
        send_away(service, stranger, Lingering(), {}, random_bytes(30, 1));
        CHECK(stranger.is_hung_up());  // reset, as it had sent what nobody has read
    }
    CHECK(as_client(service, [] {
              Template table = Template::connect("probe", WARMFORK_BACKEND_WARM);
              return WEXITSTATUS(table.spawn({WARMFORK_PROBE, "exit", "7"}).wait());
          }) == 7);
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

TEST_CASE("A hundred thousand requests of one that does not read hold nobody up") {
    AttackedService attacked;
    RawClient client(attacked.service.socket());
    const auto body = FieldWriter().text("probe").bytes();
    int sent = 0;
    while (sent < 100'000) {
        const int error = client.send(ServiceKind::find, 1, body, {}, MSG_DONTWAIT);
        if (!error) {
            ++sent;
            continue;
        }
        REQUIRE(error == EAGAIN);
        pollfd polled{client.socket(), POLLOUT, 0};
        if (::poll(&polled, 1, 100) == 0) break;  // it is not read from any more
    }
    CHECK(attacked.spawn() == 7);
    // Each is answered, once it reads.
    for (int answered = 0; answered < sent; ++answered) {
        ServiceMessage found;
        REQUIRE(client.receive(ServiceKind::found, found) == 0);
    }
}

TEST_CASE("One that leases and never reads is let go of with all it has") {
    AttackedService attacked;
    {
        RawClient client(attacked.service.socket());
        // Not all that its user may have.
        for (std::uint64_t request = 1; request <= 30; ++request)
            client.send(ServiceKind::lease, request, lease_body(), {}, MSG_DONTWAIT);
        for (std::uint64_t request = 31; request <= 400; ++request)
            client.send(ServiceKind::find, request, FieldWriter().text("probe").bytes(), {},
                        MSG_DONTWAIT);
        CHECK(attacked.spawn() == 7);
    }
    {
        // Full, and gone: there is nothing to read it by.
        RawClient client(attacked.service.socket());
        const auto body = FieldWriter().text("probe").bytes();
        pollfd polled{client.socket(), POLLOUT, 0};
        while (::poll(&polled, 1, 100) == 1)
            static_cast<void>(client.send(ServiceKind::find, 1, body, {}, MSG_DONTWAIT));
    }
}

TEST_CASE("One that goes in the middle of each step leaves nothing") {
    AttackedService attacked;
    const std::string& path = attacked.service.socket();
    for (int round = 0; round < 10; ++round) {
        RawClient(path, false);
        RawClient(path, true);
        {
            RawClient client(path, false);
            client.send(ServiceKind::hello, 0, FieldWriter().number(1).bytes());
        }
        {
            RawClient client(path);
            client.send(ServiceKind::find, 1, FieldWriter().text("probe").bytes());
        }
        {
            RawClient client(path);
            client.send(ServiceKind::lease, 1, lease_body(5));
        }
        {
            RawClient client(path);
            client.send(ServiceKind::lease, 1, lease_body(5));
            ServiceMessage leased;
            client.receive(ServiceKind::leased, leased);
        }
    }
}

TEST_CASE("A copy that keeps the connection open is not the client") {
    AttackedService attacked;
    ClientProcess client(attacked.service, [&] {
        RawClient connection(attacked.service.socket());
        ServiceMessage leased;
        connection.send(ServiceKind::lease, 1, lease_body());
        if (connection.receive(ServiceKind::leased, leased)) return 1;
        if (const pid_t copy = ::fork()) {
            say(fmt::format("{}", copy));
            say(fmt::format("{}", read_leased_child(leased.body)->pid));
        }
        while (true) ::pause();
    });
    const Descriptor copy = open_pidfd(std::stoi(client.next_line()));
    const Descriptor child = open_pidfd(std::stoi(client.next_line()));
    client.kill();
    CHECK(has_ended(child));
    signal_pidfd(copy.get(), SIGKILL);
}

TEST_CASE("The children of a client that becomes another program end") {
    AttackedService attacked;
    ClientProcess client(attacked.service, [] {
        Template table = Template::connect("probe", WARMFORK_BACKEND_WARM);
        ProbeRequest request({"wait"});
        request.descriptors.push_back({-1, 1});
        Process child = table.spawn(request.get());
        say(fmt::format("{}", child.pid()));
        await_cue();
        ::execl("/bin/sleep", "sleep", "1000", nullptr);
        return 1;
    });
    const Descriptor child = open_pidfd(std::stoi(client.next_line()));
    client.give_cue();
    CHECK(has_ended(child));
}
