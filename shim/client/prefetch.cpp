// What is leased from a template of the service: a child for each spawn, and some ahead of need.
#include <algorithm>
#include <utility>

#include "channel/stopping_point.hpp"
#include "client/leased_source.hpp"
#include "protocol/messages.hpp"

namespace warmfork {
namespace {

// The most leases that are kept ahead of need: as many as an adaptive template keeps parked.
constexpr std::uint32_t kMostPrefetched = 8;

}  // namespace

/// Gives a lease back: the child's mailbox is closed, and so it ends.
void LeasedSource::give_back(Lease lease) {
    if (connection_) connection_->release_child(lease.child);
}

void LeasedSource::drop_prefetched() {
    for (PrefetchedLease& prefetched : prefetched_) give_back(std::move(prefetched.lease));
    prefetched_.clear();
    if (prefetch_request_ && connection_) connection_->cancel(prefetch_request_);
    if (awaited_ && connection_) connection_->cancel(awaited_);
    prefetch_request_ = coming_ = awaited_ = 0;
}

/// Notes what is wanted from now on, and gives back what was leased for something else.
void LeasedSource::want(const Wanted& wanted) {
    if (wanted == last_) return;
    drop_prefetched();
    last_ = wanted;
    prefetch_count_ = 0;
}

void LeasedSource::collect_prefetched() {
    while (prefetch_request_ && coming_ > 0) {
        std::optional<ServiceConnection::Answer> answer =
            connection_->take_answer(prefetch_request_);
        if (!answer) return;
        if (answer->lease && answer->lease->image) {
            prefetched_.push_back({std::move(*answer->lease), false});
            --coming_;
        } else {
            coming_ = 0;  // there are none to be had, which a spawn will be told if it asks
        }
    }
    if (prefetch_request_) connection_->cancel(std::exchange(prefetch_request_, 0));
}

/// Asks for leases ahead, without waiting: a later spawn takes what comes.
void LeasedSource::prefetch() {
    collect_prefetched();
    if (prefetch_request_ || prefetched_.size() >= prefetch_count_) return;
    LeaseRequest request{name_,
                         last_.is_isolated ? kLeaseIsolated : 0,
                         prefetch_count_ - prefetched_.size(),
                         last_.options,
                         last_.environment,
                         connection_->sight()};
    prefetch_request_ = connection_->request(ServiceKind::lease, write_body(request));
    coming_ = prefetch_request_ ? request.count : 0;
}

Outcome LeasedSource::lease(const Connection& connection, const Wanted& wanted, const Wish& wish,
                            bool is_detached, bool may_take_prefetched, Lease& ret_lease,
                            ColdReason& ret_cold) {
    if (!is_detached) {
        const std::lock_guard lock(mutex_);
        want(wanted);
        collect_prefetched();
        while (may_take_prefetched && !prefetched_.empty()) {
            Lease lease = std::move(prefetched_.front().lease);
            prefetched_.pop_front();
            if (!lease.mailbox.is_intact() || !lease.image->check_freshness()) {
                give_back(std::move(lease));
                continue;
            }
            ret_lease = std::move(lease);
            return {};
        }
        // A spawn that comes alone, as from a command line, has no use for more.
        if (spawns_ > 0)
            prefetch_count_ = std::clamp(prefetch_count_ * 2, std::uint32_t{1}, kMostPrefetched);
    }
    const std::uint64_t id =
        ask(*connection, wanted,
            (wish.may_wait ? kLeaseMayWait : 0) | (is_detached ? kLeaseDetached : 0));
    stopping_point("client.lease-asked");
    Outcome failure = await(*connection, id, wish.began + kServicePatience, ret_lease, ret_cold);
    connection->cancel(id);
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
