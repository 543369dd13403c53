// sd-event, with owners for its sources. Only this file and those that hold a source know it.
#pragma once

#include <systemd/sd-event.h>

#include <chrono>
#include <cstdint>
#include <functional>
#include <memory>

namespace warmfork::service {

/// A source of events. Destroying it ends it, also from within its own callback.
class EventSource {
  public:
    EventSource() = default;
    explicit operator bool() const { return bool(source_); }
    void reset() { *this = {}; }
    /// Changes what is waited for, EPOLLIN and the like, where the source is a descriptor.
    void set_events(std::uint32_t events);

  private:
    friend class EventLoop;
    struct Unreference {
        void operator()(sd_event_source* source) const { sd_event_source_disable_unref(source); }
    };
    std::shared_ptr<void> callback_;  // outlives the source; shared: it may be running
    std::unique_ptr<sd_event_source, Unreference> source_;
};

/// A process has one. It is not thread safe, and not for use after fork (-ECHILD).
class EventLoop {
  public:
    /// Throws std::system_error where it cannot be made.
    EventLoop();
    ~EventLoop();
    EventLoop(const EventLoop&) = delete;
    EventLoop& operator=(const EventLoop&) = delete;

    /// Calls back with the events that have come. The descriptor stays the caller's and must
    /// outlive the source. Throws std::system_error (EPERM: not a descriptor to wait for).
    [[nodiscard]] EventSource watch(int descriptor, std::uint32_t events,
                                    std::function<void(std::uint32_t)> callback);
    /// Calls back once, after the delay.
    [[nodiscard]] EventSource after(std::chrono::microseconds delay,
                                    std::function<void()> callback);
    /// Calls back once, at that time, or soon where it has passed.
    [[nodiscard]] EventSource at(std::chrono::steady_clock::time_point time,
                                 std::function<void()> callback);
    /// Calls back once, when all that has come is dealt with.
    [[nodiscard]] EventSource soon(std::function<void()> callback);
    /// Blocks the signal for this process and calls back when it comes, before anything else that
    /// waits: none is ever taken and not yet dealt with, so an exec from a callback loses none.
    [[nodiscard]] EventSource on_signal(int signal, std::function<void()> callback);

    /// Tells systemd's watchdog that this process lives, if it was asked to (WATCHDOG_USEC). What
    /// libsystemd has for it would wait for a manager that does not read.
    void feed_watchdog();

    /// Runs until `leave` is called. Returns its status.
    [[nodiscard]] int run();
    void leave(int status);

  private:
    void feed_watchdog_every(std::chrono::microseconds period);

    sd_event* loop_ = nullptr;
    EventSource watchdog_;
};

}  // namespace warmfork::service
