// Signals that come while a test waits.
#pragma once

#include <signal.h>
#include <time.h>

#include <stdexcept>

/// While it lives a signal whose handler does nothing, SIGUSR1, reaches this process over and over:
/// no wait of it is over before several have come.
class SignalRain {
  public:
    SignalRain() {
        struct sigaction action {};
        action.sa_handler = [](int) {};
        ::sigaction(SIGUSR1, &action, &before_);
        sigevent event{};
        event.sigev_notify = SIGEV_SIGNAL;
        event.sigev_signo = SIGUSR1;
        const itimerspec period{{0, 20'000'000}, {0, 20'000'000}};
        if (::timer_create(CLOCK_MONOTONIC, &event, &timer_) < 0 ||
            ::timer_settime(timer_, 0, &period, nullptr) < 0)
            throw std::runtime_error("there is no timer");
    }
    SignalRain(const SignalRain&) = delete;
    SignalRain& operator=(const SignalRain&) = delete;
    ~SignalRain() {
        ::timer_delete(timer_);
        ::sigaction(SIGUSR1, &before_, nullptr);
    }

  private:
    timer_t timer_{};
    struct sigaction before_ {};
};
