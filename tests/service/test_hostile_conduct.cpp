// Clients that hold the service up: by what is slow to be closed, by not reading, by how they end.
#include <arpa/inet.h>
#include <fcntl.h>
#include <fmt/format.h>
#include <netinet/in.h>
#include <poll.h>
#include <signal.h>
#include <sys/prctl.h>
#include <sys/socket.h>
#include <sys/wait.h>
#include <unistd.h>

#include "service/attacked_service.hpp"
#include "support/catch.hpp"
#include "support/service.hpp"

using namespace warmfork;

namespace {

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

}  // namespace

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
        // The kernel has taken this process's ids for a secret since, also from the service.
        REQUIRE(::prctl(PR_SET_DUMPABLE, 1, 0, 0, 0) == 0);
        send_away(service, stranger, Lingering(), {}, random_bytes(30, 1));
        CHECK(stranger.is_hung_up());  // reset, as it had sent what nobody has read
    }
    CHECK(as_client(service, [] {
              Template table = Template::connect("probe", WARMFORK_BACKEND_WARM);
              return WEXITSTATUS(table.spawn({WARMFORK_PROBE, "exit", "7"}).wait());
          }) == 7);
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
