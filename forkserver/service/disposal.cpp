#include "service/disposal.hpp"

#include <fcntl.h>
#include <signal.h>
#include <sys/time.h>
#include <time.h>
#include <unistd.h>

#include <condition_variable>
#include <deque>
#include <mutex>
#include <system_error>
#include <thread>

namespace warmfork::service {
namespace {

// Interrupts what the thread waits for in close(2): a connection that lingers is let go of then. It
// is ignored by default, and so of no consequence to whoever gets one.
constexpr int kNudge = SIGURG;
constexpr long kNudgePeriod = 20'000'000;  // nanoseconds

void be_nudged(int) {}

/// Nudges the calling thread again and again while it lives.
class Nudges {
  public:
    Nudges() {
        struct sigaction action {};
        action.sa_handler = be_nudged;
        sigset_t nudge;
        ::sigemptyset(&nudge);
        ::sigaddset(&nudge, kNudge);
        sigevent event{};
        event.sigev_notify = SIGEV_THREAD_ID;
        event.sigev_signo = kNudge;
        event._sigev_un._tid = ::gettid();
        // Without them it waits for as long as it has to, and only the same user waits with it.
        has_timer_ = ::sigaction(kNudge, &action, nullptr) == 0 &&
                     ::pthread_sigmask(SIG_UNBLOCK, &nudge, nullptr) == 0 &&
                     ::timer_create(CLOCK_MONOTONIC, &event, &timer_) == 0;
    }
    ~Nudges() {
        if (has_timer_) ::timer_delete(timer_);
    }
    Nudges(const Nudges&) = delete;
    Nudges& operator=(const Nudges&) = delete;
    void set(bool is_on) const {
        const timespec period{0, is_on ? kNudgePeriod : 0};
        const itimerspec times{period, period};
        if (has_timer_) ::timer_settime(timer_, 0, &times, nullptr);
    }

  private:
    timer_t timer_{};
    bool has_timer_ = false;
};

}  // namespace

struct Disposal::Queue {
    std::mutex mutex;
    std::condition_variable changed;
    std::deque<Descriptor> waiting;
    std::size_t closing = 0;  ///< at this moment
    bool is_ending = false;
};

Disposal::Disposal() : queue_(std::make_shared<Queue>()) {}

Disposal::~Disposal() {
    const std::lock_guard lock(queue_->mutex);
    queue_->is_ending = true;
    queue_->changed.notify_all();
}

void Disposal::close(Descriptor descriptor) {
    if (!descriptor || (!has_thread_ && !start())) return;  // closed here
    const std::lock_guard lock(queue_->mutex);
    queue_->waiting.push_back(std::move(descriptor));
    queue_->changed.notify_all();
}

std::size_t Disposal::waiting() const {
    const std::lock_guard lock(queue_->mutex);
    return queue_->waiting.size() + queue_->closing;
}

void Disposal::prepare_for_exec(std::chrono::milliseconds patience) {
    std::unique_lock lock(queue_->mutex);
    queue_->changed.wait_for(lock, patience,
                             [&] { return queue_->waiting.empty() && queue_->closing == 0; });
    for (Descriptor& descriptor : queue_->waiting) ::fcntl(descriptor.get(), F_SETFD, 0);
}

/// Returns false where there can be no thread.
bool Disposal::start() {
    // Signals are for the loop's thread.
    sigset_t all, before;
    ::sigfillset(&all);
    ::pthread_sigmask(SIG_SETMASK, &all, &before);
    try {
        std::thread([queue = queue_] { run(queue); }).detach();
        has_thread_ = true;
    } catch (const std::system_error&) {
    }
    ::pthread_sigmask(SIG_SETMASK, &before, nullptr);
    return has_thread_;
}

void Disposal::run(const std::shared_ptr<Queue>& queue) {
    const Nudges nudges;
    std::unique_lock lock(queue->mutex);
    while (true) {
        queue->changed.wait(lock, [&] { return queue->is_ending || !queue->waiting.empty(); });
        if (queue->waiting.empty()) return;
        Descriptor descriptor = std::move(queue->waiting.front());
        queue->waiting.pop_front();
        queue->closing = 1;
        lock.unlock();
        nudges.set(true);
        descriptor.reset();
        nudges.set(false);
        lock.lock();
        queue->closing = 0;
        queue->changed.notify_all();
    }
}

}  // namespace warmfork::service
