// Calls that block for longer than the loop may, made one after the other by a thread of their own.
#pragma once

#include <condition_variable>
#include <deque>
#include <functional>
#include <mutex>
#include <thread>

#include "channel/descriptor.hpp"
#include "service/event_loop.hpp"

namespace warmfork::service {

/// It is for use by the loop's thread. No thread is started before the first call.
class BackgroundCalls {
  public:
    /// Throws std::system_error where it cannot be made.
    explicit BackgroundCalls(EventLoop& loop);
    /// Makes the calls that wait, without what comes then.
    ~BackgroundCalls();
    BackgroundCalls(const BackgroundCalls&) = delete;
    BackgroundCalls& operator=(const BackgroundCalls&) = delete;

    /// `call` runs in the thread, in the order in which it was added, and touches nothing that is
    /// not its own; `then` runs in the loop. Neither throws. Where there can be no thread both are
    /// called at once.
    void add(std::function<void()> call, std::function<void()> then);
    /// Blocks until all has been called, and what comes then as well.
    void finish();

  private:
    struct Entry {
        std::function<void()> call, then;
    };
    [[nodiscard]] bool start();
    void run();
    void take_done();

    Descriptor bell_;
    EventSource rung_;
    std::thread thread_;
    std::mutex mutex_;
    std::condition_variable changed_;
    std::deque<Entry> waiting_, done_;
    bool is_calling_ = false;
    bool is_ending_ = false;
};

}  // namespace warmfork::service
