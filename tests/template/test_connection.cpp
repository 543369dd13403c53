// How a template opens the channel to its owner.
#include "template/connection.hpp"

#include <fcntl.h>
#include <sys/wait.h>
#include <unistd.h>

#include "channel/descriptor.hpp"
#include "channel/doorbell.hpp"
#include "channel/message_socket.hpp"
#include "protocol/messages.hpp"
#include "support/catch.hpp"

using namespace warmfork;

namespace {

/// A template, a process of its own, that waits for the hello. This process is its owner.
class WaitingTemplate {
  public:
    WaitingTemplate() {
        Descriptor far;
        REQUIRE(make_message_pair(control_, far) == 0);
        pid_ = ::fork();
        REQUIRE(pid_ >= 0);
        if (pid_ == 0) {
            control_.reset();
            Connection connection;
            ::_exit(open_connection(std::move(far), connection));
        }
    }
    void greet() {
        Segment segment;
        Descriptor memfd;
        REQUIRE(Segment::create(segment, memfd) == 0);
        const Descriptor owner = open_pidfd(::getpid());
        const Descriptor command_bell = make_doorbell(), completion_bell = make_doorbell();
        OwnerHello hello{};
        hello.magic = kHelloMagic;
        hello.version = kProtocolVersion;
        hello.owner_pid = ::getpid();
        const std::string keeper = "/nowhere/warmfork-keeper";
        const Descriptor lifeline(::open("/dev/null", O_RDWR | O_CLOEXEC));
        const int descriptors[] = {memfd.get(), command_bell.get(), completion_bell.get(),
                                   owner.get(), lifeline.get()};
        REQUIRE(send_message(control_.get(), std::as_bytes(std::span(&hello, 1)),
                             std::as_bytes(std::span(keeper)), descriptors, 0) == 0);
    }
    /// Has it answered, with the version of this protocol?
    bool has_answered() {
        TemplateHello answer{};
        ReceivedMessage received;
        return receive_message(control_.get(), std::as_writable_bytes(std::span(&answer, 1)), {}, 0,
                               received) == 0 &&
               answer.magic == kHelloMagic && answer.version == kProtocolVersion;
    }
    void hang_up() { control_.reset(); }
    /// What open_connection has returned there.
    int result() {
        int status = -1;
        REQUIRE(::waitpid(pid_, &status, 0) == pid_);
        REQUIRE(WIFEXITED(status));
        return WEXITSTATUS(status);
    }

  private:
    Descriptor control_;
    pid_t pid_ = -1;
};

}  // namespace

TEST_CASE("A channel is open once the hello of its owner has come") {
    WaitingTemplate waiting;
    waiting.greet();
    CHECK(waiting.has_answered());
    CHECK(waiting.result() == 0);
}

TEST_CASE("A channel whose owner ends before its hello is none") {
    WaitingTemplate waiting;
    waiting.hang_up();
    CHECK(waiting.result() != 0);
}
