#include "service/event_loop.hpp"

#include <signal.h>
#include <systemd/sd-daemon.h>

#include <algorithm>
#include <system_error>
#include <tuple>

#include "service/notify.hpp"

namespace warmfork::service {
namespace {

void check(int result, const char* what) {
    if (result < 0) throw std::system_error(-result, std::generic_category(), what);
}

using Callback = std::function<void(std::uint32_t)>;

/// Calls back. A copy keeps the callback alive while it runs, even if it ends its own source.
void call(void* callback, std::uint32_t events) {
    const std::shared_ptr<Callback> kept = *static_cast<std::shared_ptr<Callback>*>(callback);
    (*kept)(events);
}

int call_io(sd_event_source*, int, std::uint32_t events, void* callback) {
    call(callback, events);
    return 0;
}

int call_timer(sd_event_source*, std::uint64_t, void* callback) {
    call(callback, 0);
    return 0;
}

int call_deferred(sd_event_source*, void* callback) {
    call(callback, 0);
    return 0;
}

int call_signal(sd_event_source*, const signalfd_siginfo*, void* callback) {
    call(callback, 0);
    return 0;
}

std::shared_ptr<std::shared_ptr<Callback>> hold(Callback callback) {
    return std::make_shared<std::shared_ptr<Callback>>(
        std::make_shared<Callback>(std::move(callback)));
}

Callback without_events(std::function<void()> callback) {
    return [callback = std::move(callback)](std::uint32_t) { callback(); };
}

}  // namespace

void EventSource::set_events(std::uint32_t events) {
    check(sd_event_source_set_io_events(source_.get(), events), "cannot change an event source");
}

EventLoop::EventLoop() {
    check(sd_event_default(&loop_), "cannot make an event loop");
}

EventLoop::~EventLoop() {
    sd_event_unref(loop_);
}

EventSource EventLoop::watch(int descriptor, std::uint32_t events, Callback callback) {
    auto kept = hold(std::move(callback));
    sd_event_source* source = nullptr;
    check(sd_event_add_io(loop_, &source, descriptor, events, call_io, kept.get()),
          "cannot watch a descriptor");
    EventSource owner;
    owner.callback_ = std::move(kept);
    owner.source_.reset(source);
    return owner;
}

EventSource EventLoop::after(std::chrono::microseconds delay, std::function<void()> callback) {
    auto kept = hold(without_events(std::move(callback)));
    sd_event_source* source = nullptr;
    // The accuracy is 1 µs; the default is a quarter of a second.
    check(sd_event_add_time_relative(loop_, &source, CLOCK_MONOTONIC,
                                     static_cast<std::uint64_t>(delay.count()), 1, call_timer,
                                     kept.get()),
          "cannot set a timer");
    EventSource owner;
    owner.callback_ = std::move(kept);
    owner.source_.reset(source);
    return owner;
}

EventSource EventLoop::at(std::chrono::steady_clock::time_point time,
                          std::function<void()> callback) {
    const auto left =
        std::chrono::ceil<std::chrono::microseconds>(time - std::chrono::steady_clock::now());
    return after(std::max(left, std::chrono::microseconds(0)), std::move(callback));
}

EventSource EventLoop::soon(std::function<void()> callback) {
    auto kept = hold(without_events(std::move(callback)));
    sd_event_source* source = nullptr;
    check(sd_event_add_defer(loop_, &source, call_deferred, kept.get()),
          "cannot add to the event loop");
    EventSource owner;
    owner.callback_ = std::move(kept);
    owner.source_.reset(source);
    return owner;
}

EventSource EventLoop::on_signal(int signal, std::function<void()> callback) {
    sigset_t set;
    ::sigemptyset(&set);
    ::sigaddset(&set, signal);
    check(-::pthread_sigmask(SIG_BLOCK, &set, nullptr), "cannot block a signal");
    auto kept = hold(without_events(std::move(callback)));
    sd_event_source* source = nullptr;
    check(sd_event_add_signal(loop_, &source, signal, call_signal, kept.get()),
          "cannot wait for a signal");
    check(sd_event_source_set_priority(source, SD_EVENT_PRIORITY_IMPORTANT),
          "cannot put a signal first");
    EventSource owner;
    owner.callback_ = std::move(kept);
    owner.source_.reset(source);
    return owner;
}

void EventLoop::feed_watchdog() {
    std::uint64_t microseconds = 0;
    check(sd_watchdog_enabled(0, &microseconds), "cannot read WATCHDOG_USEC");
    if (microseconds > 0) feed_watchdog_every(std::chrono::microseconds(microseconds / 2));
}

void EventLoop::feed_watchdog_every(std::chrono::microseconds period) {
    // Where the manager has no room it has not read what was said before, and knows no better.
    std::ignore = notify_manager("WATCHDOG=1", std::chrono::milliseconds(0));
    watchdog_ = after(period, [this, period] { feed_watchdog_every(period); });
}

int EventLoop::run() {
    const int result = sd_event_loop(loop_);
    check(result, "the event loop failed");
    return result;
}

void EventLoop::leave(int status) {
    sd_event_exit(loop_, status);
}

}  // namespace warmfork::service
