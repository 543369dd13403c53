// How many parked children a template keeps. This is pure arithmetic: it is told what happened and
// when, and asked what to do.
#pragma once

#include <algorithm>
#include <chrono>
#include <cstdint>
#include <optional>

namespace warmfork {

class SparePolicy {
  public:
    using Clock = std::chrono::steady_clock;
    using Time = Clock::time_point;

    /// Without a spawn for this long, one spare is given up, down to the least number.
    static constexpr std::chrono::seconds kIdlePeriod{10};
    /// How long until the next try, after a spare ended by itself, or could not be forked.
    static constexpr std::chrono::milliseconds kFirstDelay{10};
    static constexpr std::chrono::milliseconds kLongestDelay{2000};

    void set_range(std::uint32_t least, std::uint32_t most) {
        least_ = least;
        most_ = std::max(least, most);
        wanted_ = std::clamp(wanted_, least_, most_);
    }

    void spare_taken(Time now) {
        last_use_ = now;
        delay_ = std::chrono::milliseconds(0);
    }
    void none_was_parked(Time now) {
        last_use_ = now;
        wanted_ = std::clamp(wanted_ * 2, std::min(1u, most_), most_);
    }
    void spare_failed(Time now) {
        delay_ = std::clamp(delay_ * 2, kFirstDelay, kLongestDelay);
        not_before_ = now + delay_;
    }

    /// Gives up a spare when the template has been idle. Must be called before `wanted` is read.
    void tick(Time now) {
        if (wanted_ <= least_ || now - last_use_ < kIdlePeriod) return;
        --wanted_;
        last_use_ = now;
    }

    std::uint32_t wanted() const { return wanted_; }
    bool may_fork(Time now) const { return now >= not_before_; }

    /// Returns when the answer of `tick` or `may_fork` will next change, or nothing where it will
    /// not by itself.
    std::optional<Time> next_change(std::uint32_t parked, Time now) const {
        std::optional<Time> next;
        if (wanted_ > least_) next = last_use_ + kIdlePeriod;
        if (parked < wanted_ && !may_fork(now))
            next = next ? std::min(*next, not_before_) : not_before_;
        return next;
    }

  private:
    std::uint32_t least_ = 1;
    std::uint32_t most_ = 8;
    std::uint32_t wanted_ = 2;  // so that a hand-off need not wake the template
    std::chrono::milliseconds delay_{0};
    Time not_before_{};
    Time last_use_ = Clock::now();
};

}  // namespace warmfork
