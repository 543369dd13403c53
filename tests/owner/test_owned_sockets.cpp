#include "owner/owned_sockets.hpp"

#include <poll.h>
#include <signal.h>
#include <sys/wait.h>

#include "support/catch.hpp"

using warmfork::ReplyPipe;

TEST_CASE("A forked copy of the owner does not hide that a child has closed its reply") {
    ReplyPipe reply;
    REQUIRE(reply.open() == 0);
    const pid_t copy = ::fork();
    if (copy == 0) {
        ::pause();
        ::_exit(0);
    }
    reply.close_write_end();
    pollfd polled{reply.read_end(), POLLIN, 0};
    CHECK(::poll(&polled, 1, 60'000) == 1);
    CHECK(polled.revents == POLLHUP);
    ::kill(copy, SIGKILL);
    ::waitpid(copy, nullptr, 0);
}
