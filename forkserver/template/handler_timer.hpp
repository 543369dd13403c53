// How long the fork handlers of a template may take.
#pragma once

#include <signal.h>
#include <sys/syscall.h>
#include <time.h>
#include <unistd.h>

#include <cerrno>

namespace warmfork {

/// Has the kernel end this process with SIGKILL where a handler does not return: the process can do
/// nothing itself then, not even see that its owner has ended. A forked copy has no timer.
class HandlerTimer {
  public:
    static constexpr time_t kPatience = 10;  ///< seconds

    HandlerTimer() {
        sigevent event{};
        event.sigev_notify = SIGEV_SIGNAL;
        event.sigev_signo = SIGKILL;
        if (::syscall(SYS_timer_create, CLOCK_MONOTONIC, &event, &id_) < 0) error_ = errno;
    }
    HandlerTimer(const HandlerTimer&) = delete;
    HandlerTimer& operator=(const HandlerTimer&) = delete;
    ~HandlerTimer() {
        if (error_ == 0) ::syscall(SYS_timer_delete, id_);
    }

    /// Returns why there is no timer (EAGAIN: RLIMIT_SIGPENDING), or 0 where there is one.
    int error() const { return error_; }
    // These allocate and lock nothing.
    void start() const { set(kPatience); }
    void stop() const { set(0); }

  private:
    void set(time_t seconds) const {
        itimerspec time{};
        time.it_value.tv_sec = seconds;
        // It cannot fail for a timer that exists.
        if (error_ == 0) ::syscall(SYS_timer_settime, id_, 0, &time, nullptr);
    }

    int id_ = 0;
    int error_ = 0;
};

}  // namespace warmfork
