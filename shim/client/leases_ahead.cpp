// What is leased from a template of the service: a child for each spawn, and some ahead of need.
#include <algorithm>
#include <utility>

#include "channel/stopping_point.hpp"
#include "client/leased_source.hpp"
#include "protocol/messages.hpp"

namespace warmfork {
namespace {

// The most leases that are kept ahead of need: as many as an adaptive template keeps parked.
constexpr std::uint32_t kMostAhead = 8;

}  // namespace

/// Gives a lease back: the child's mailbox is closed, and so it ends.
void LeasedSource::give_back(Lease lease) {
    if (connection_) connection_->forget_child(lease.child);
}

void LeasedSource::drop_ahead() {
    for (LeasedAhead& ahead : ahead_) give_back(std::move(ahead.lease));
    ahead_.clear();
    if (asked_ahead_ && connection_) connection_->forget(asked_ahead_);
    if (awaited_ && connection_) connection_->forget(awaited_);
    asked_ahead_ = coming_ = awaited_ = 0;
}

/// Notes what is wanted from now on, and gives back what was leased for something else.
void LeasedSource::want(const Wanted& wanted) {
    if (wanted == last_) return;
    drop_ahead();
    last_ = wanted;
    wanted_ahead_ = 0;
}

void LeasedSource::take_in_ahead() {
    while (asked_ahead_ && coming_ > 0) {
        std::optional<ServiceConnection::Answer> answer = connection_->take_answer(asked_ahead_);
        if (!answer) return;
        if (answer->lease && answer->lease->image) {
            ahead_.push_back({std::move(*answer->lease), false});
            --coming_;
        } else {
            coming_ = 0;  // there are none to be had, which a spawn will be told if it asks
        }
    }
    if (asked_ahead_) connection_->forget(std::exchange(asked_ahead_, 0));
}

/// Asks for leases ahead, without waiting: a later spawn takes what comes.
void LeasedSource::ask_ahead() {
    take_in_ahead();
    if (asked_ahead_ || ahead_.size() >= wanted_ahead_) return;
    LeaseRequest request{name_,
                         last_.is_isolated ? kLeaseIsolated : 0,
                         wanted_ahead_ - ahead_.size(),
                         last_.options,
                         last_.environment,
                         connection_->sight()};
    asked_ahead_ = connection_->request(ServiceKind::lease, write_body(request));
    coming_ = asked_ahead_ ? request.count : 0;
}

Outcome LeasedSource::lease(const Connection& connection, const Wanted& wanted, const Wish& wish,
                            bool is_detached, bool may_take_ahead, Lease& ret_lease,
                            ColdReason& ret_cold) {
    if (!is_detached) {
        const std::lock_guard lock(mutex_);
        want(wanted);
        take_in_ahead();
        while (may_take_ahead && !ahead_.empty()) {
            Lease lease = std::move(ahead_.front().lease);
            ahead_.pop_front();
            if (!lease.mailbox.is_intact() || !lease.image->is_fresh()) {
                give_back(std::move(lease));
                continue;
            }
            ret_lease = std::move(lease);
            return {};
        }
        // A spawn that comes alone, as from a command line, has no use for more.
        if (spawns_ > 0)
            wanted_ahead_ = std::clamp(wanted_ahead_ * 2, std::uint32_t{1}, kMostAhead);
    }
    const std::uint64_t id =
        ask(*connection, wanted,
            (wish.may_wait ? kLeaseMayWait : 0) | (is_detached ? kLeaseDetached : 0));
    stopping_point("client.lease-asked");
    Outcome failure = await(*connection, id, wish.began + kServicePatience, ret_lease, ret_cold);
    connection->forget(id);
    return failure;
}

std::uint64_t LeasedSource::ask(ServiceConnection& connection, const Wanted& wanted,
                                std::uint64_t flags) const {
    LeaseRequest request{name_, flags, 1, wanted.options, wanted.environment, connection.sight()};
    if (wanted.is_isolated) request.flags |= kLeaseIsolated;
    return connection.request(ServiceKind::lease, write_body(request));
}

Outcome LeasedSource::await(ServiceConnection& connection, std::uint64_t id, Deadline deadline,
                            Lease& ret_lease, ColdReason& ret_cold) {
    ServiceConnection::Answer answer;
    if (Outcome failure = connection.answer(id, deadline, answer)) return failure;
    if (answer.lease && answer.lease->image) {
        ret_lease = std::move(*answer.lease);
        return {};
    }
    if (!answer.refusal) return Failure{Stage::launch, EPROTO, 0, "the service answers wrongly"};
    if (answer.refusal->reason != 0)
        ret_cold = {static_cast<warmfork_reason>(
                        std::min<std::uint64_t>(answer.refusal->reason, WARMFORK_REASON_COUNT - 1)),
                    answer.refusal->text};
    if (answer.refusal->error_number == 0) return {};
    return Failure{static_cast<Stage>(answer.refusal->stage),
                   static_cast<int>(answer.refusal->error_number), 0, answer.refusal->text};
}

}  // namespace warmfork
