// How a template opens the channel to its owner.
#include "template/connection.hpp"

#include <sys/wait.h>
#include <unistd.h>

#include <cerrno>
#include <csignal>

#include "channel/descriptor.hpp"
#include "channel/doorbell.hpp"
#include "channel/message_socket.hpp"
#include "protocol/messages.hpp"
#include "support/catch.hpp"
#include "support/processes.hpp"

using namespace warmfork;

namespace {

/// A template, a process of its own, that has answered the hello. This process holds the other end
/// of its socket, be it the owner or a copy of the owner.
class GreetedTemplate {
  public:
    explicit GreetedTemplate(pid_t owner = ::getpid()) {
        Segment segment;
        Descriptor memfd, far;
        REQUIRE(Segment::create(segment, memfd) == 0);
        REQUIRE(make_message_pair(control_, far) == 0);
        pid_ = ::fork();
        REQUIRE(pid_ >= 0);
        if (pid_ == 0) {
            control_.reset();
            Connection connection;
            ::_exit(open_connection(std::move(far), connection));
        }
        far.reset();
        send_hello(memfd.get(), owner);
        TemplateHello answer{};
        ReceivedMessage received;
        REQUIRE(receive_message(control_.get(), std::as_writable_bytes(std::span(&answer, 1)), {},
                                0, received) == 0);
        REQUIRE(answer.magic == kHelloMagic);
    }
    void ring_for_commands() { ring(command_bell_.get()); }
    void hang_up() { control_.reset(); }
    /// What open_connection has returned there.
    int result() {
        int status = -1;
        REQUIRE(::waitpid(pid_, &status, 0) == pid_);
        REQUIRE(WIFEXITED(status));
        return WEXITSTATUS(status);
    }

  private:
    void send_hello(int memfd, pid_t owner_pid) {
        const Descriptor owner = open_pidfd(owner_pid);
        const Descriptor completion_bell = make_doorbell();
        OwnerHello hello{};
        hello.magic = kHelloMagic;
        hello.version = kProtocolVersion;
        hello.owner_pid = owner_pid;
        const std::string keeper = "/nowhere/warmfork-keeper";
        const int descriptors[] = {memfd, command_bell_.get(), completion_bell.get(), owner.get()};
        REQUIRE(send_message(control_.get(), std::as_bytes(std::span(&hello, 1)),
                             std::as_bytes(std::span(keeper)), descriptors, 0) == 0);
    }

    Descriptor control_, command_bell_ = make_doorbell();
    pid_t pid_ = -1;
};

}  // namespace

TEST_CASE("A channel is open once its owner says that the hello has been sent") {
    GreetedTemplate greeted;
    greeted.ring_for_commands();
    CHECK(greeted.result() == 0);
}

TEST_CASE("A channel whose owner ends within its hello is none") {
    GreetedTemplate greeted;
    greeted.hang_up();
    CHECK(greeted.result() == ECONNRESET);
}

TEST_CASE("A channel is none when the owner has ended, though a copy of it holds the socket") {
    const pid_t owner = fork_idler();
    GreetedTemplate greeted(owner);
    REQUIRE(::kill(owner, SIGKILL) == 0);
    REQUIRE(::waitpid(owner, nullptr, 0) == owner);
    CHECK(greeted.result() == ECONNRESET);
}
