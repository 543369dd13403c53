#include "channel/deadline.hpp"

#include <sys/wait.h>
#include <unistd.h>

#include "support/catch.hpp"
#include "support/processes.hpp"
#include "support/signal_rain.hpp"

using warmfork::poll_through_signals;
using Clock = std::chrono::steady_clock;

TEST_CASE("A wait lasts until its deadline, however many signals come") {
    const pid_t child = fork_idler();
    const warmfork::Descriptor pidfd = warmfork::open_pidfd(child);
    pollfd polled{pidfd.get(), POLLIN, 0};
    const SignalRain rain;
    const auto until = Clock::now() + std::chrono::milliseconds(200);
    CHECK(poll_through_signals(std::span(&polled, 1), until) == 0);
    CHECK(Clock::now() >= until);
    ::kill(child, SIGKILL);
    CHECK(poll_through_signals(std::span(&polled, 1), {}) == 1);
    ::waitpid(child, nullptr, 0);
}
