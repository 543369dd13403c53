#include "service/background_calls.hpp"

#include <signal.h>
#include <sys/epoll.h>
#include <sys/eventfd.h>

#include <system_error>
#include <utility>

namespace warmfork::service {

BackgroundCalls::BackgroundCalls(EventLoop& loop)
    : bell_(::eventfd(0, EFD_CLOEXEC | EFD_NONBLOCK)) {
    if (!bell_) throw std::system_error(errno, std::generic_category(), "eventfd");
    rung_ = loop.watch(bell_.get(), EPOLLIN, [this](std::uint32_t) { take_done(); });
}

BackgroundCalls::~BackgroundCalls() {
    if (!thread_.joinable()) return;
    {
        const std::lock_guard lock(mutex_);
        is_ending_ = true;
    }
    changed_.notify_all();
    thread_.join();
}

void BackgroundCalls::add(std::function<void()> call, std::function<void()> then) {
    if (!thread_.joinable() && !start()) {
        call();
        if (then) then();
        return;
    }
    {
        const std::lock_guard lock(mutex_);
        waiting_.push_back({std::move(call), std::move(then)});
    }
    changed_.notify_all();
}

/// Returns false where there can be no thread.
bool BackgroundCalls::start() {
    // Signals are for the loop's thread.
    sigset_t all, before;
    ::sigfillset(&all);
    ::pthread_sigmask(SIG_SETMASK, &all, &before);
    try {
        thread_ = std::thread([this] { run(); });
    } catch (const std::system_error&) {
    }
    ::pthread_sigmask(SIG_SETMASK, &before, nullptr);
    return thread_.joinable();
}

void BackgroundCalls::run() {
    std::unique_lock lock(mutex_);
    while (true) {
        changed_.wait(lock, [this] { return is_ending_ || !waiting_.empty(); });
        if (waiting_.empty()) return;
        Entry entry = std::move(waiting_.front());
        waiting_.pop_front();
        is_calling_ = true;
        lock.unlock();
        entry.call();
        lock.lock();
        is_calling_ = false;
        done_.push_back(std::move(entry));
        ::eventfd_write(bell_.get(), 1);
        changed_.notify_all();
    }
}

void BackgroundCalls::take_done() {
    eventfd_t rings;
    ::eventfd_read(bell_.get(), &rings);
    std::deque<Entry> done;
    {
        const std::lock_guard lock(mutex_);
        done = std::exchange(done_, {});
    }
    for (Entry& entry : done)
        if (entry.then) entry.then();
}

void BackgroundCalls::finish() {
    while (thread_.joinable()) {
        {
            std::unique_lock lock(mutex_);
            changed_.wait(lock, [this] { return waiting_.empty() && !is_calling_; });
            if (done_.empty()) return;
        }
        take_done();  // which may add more
    }
}

}  // namespace warmfork::service
