// The children that a template has forked ahead of need.
#include <fmt/format.h>
#include <sys/socket.h>

#include <algorithm>
#include <array>

#include "channel/message_socket.hpp"
#include "channel/stopping_point.hpp"
#include "child/proc_entries.hpp"
#include "template/parking_token.hpp"
#include "template/template_server.hpp"

namespace warmfork {
namespace {

using Clock = SparePolicy::Clock;

/// Has it parked? Its name tells, which it takes last; the mailbox on which it says so is the
/// owner's.
bool has_parked(int pid) {
    std::array<char, 32> buffer;
    return read_line(NumberedPath("/proc/", pid, "/comm").get(), buffer) == kSpareName;
}

}  // namespace

std::uint32_t TemplateServer::parked() const {
    return static_cast<std::uint32_t>(std::count_if(
        children_.begin(), children_.end(),
        [](const Child& child) { return child.state == State::parked && !child.ended; }));
}

bool TemplateServer::refill_is_due() const {
    return !socket_is_full_ && parked() < policy_.wanted() && policy_.may_fork(Clock::now());
}

/// Ends a parked child, unless its record has arrived already. Then it is the owner's, and false is
/// returned.
bool TemplateServer::give_up(Child& child) {
    if (!child.token || !take_parking_token(child.token.get())) return false;
    signal_pidfd(child.pidfd.get(), SIGKILL);
    child.state = State::given_up;
    return true;
}

void TemplateServer::give_up_surplus() {
    std::uint32_t surplus = parked();
    for (Child& child : children_) {
        if (surplus <= policy_.wanted()) return;
        if (child.state == State::parked && !child.ended && give_up(child)) --surplus;
    }
}

void TemplateServer::drop_ended_children() {
    for (const Child& child : children_) {
        if (!child.ended) continue;
        stopping_point("template.child-ended");
        if (child.state == State::running) continue;
        if (child.state == State::parked) policy_.spare_failed(Clock::now());
        outbox_.add(make_frame(FrameKind::gone, child.id, child.pid));
    }
    std::erase_if(children_, [](const Child& child) { return child.ended; });
}

/// Prepares the next spare. Returns false where it cannot be forked now.
bool TemplateServer::prepare_spare() {
    UnbornSpare spare{{}, make_parking_token()};
    if (spare.token && make_spare_mailbox(spare.mailbox) == 0) {
        spare_ = std::move(spare);
        return true;
    }
    if (!socket_is_full_) policy_.spare_failed(Clock::now());
    return false;
}

/// Makes the mailbox of the next child and sends the owner its end. Returns 0 or errno; where the
/// socket is full `socket_is_full_` is set.
int TemplateServer::make_spare_mailbox(Descriptor& ret_child_end) {
    Descriptor owner_end, child_end;
    if (int error = make_message_pair(owner_end, child_end)) return error;
    const auto now = std::chrono::duration_cast<std::chrono::nanoseconds>(
        Clock::now().time_since_epoch());  // steady_clock is CLOCK_MONOTONIC
    const MailboxMessage message{last_child_id_ + 1, now.count()};
    const int number = owner_end.get();
    const int error = send_message(connection_.control.get(), bytes_of(message), {},
                                   std::span(&number, 1), MSG_DONTWAIT);
    socket_is_full_ = error == EAGAIN;
    if (!error) ret_child_end = std::move(child_end);
    return error;
}

void TemplateServer::note_spare(const ForkFailure& failure) {
    must_look_ = true;
    if (failure.stage == Stage::none) {
        children_.back().token = std::move(spare_->token);
    } else {
        outbox_.add(make_frame(FrameKind::gone, last_child_id_));
        // This is no spawn's error: the next one finds none parked, and is told why by its own
        // fork.
        policy_.spare_failed(Clock::now());
    }
    spare_.reset();
}

std::vector<SpareFact> TemplateServer::spare_facts() const {
    std::vector<SpareFact> facts;
    for (const Child& child : children_)
        if (child.state == State::parked && !child.ended)
            facts.push_back({child.pid, has_parked(child.pid),
                             std::chrono::duration<double>(Clock::now() - child.born).count()});
    return facts;
}

/// Writes into the log, once for each spare, that it has not parked in time.
void TemplateServer::look_at_expected_spares() {
    const auto due = Clock::now() - kSparePatience;
    for (Child& child : children_) {
        if (!child.is_expected || child.born > due) continue;
        child.is_expected = false;
        if (child.state != State::parked || child.ended || has_parked(child.pid)) continue;
        fmt::print(stderr,
                   "warmfork: the child {} that was forked ahead of need is not prepared after {} "
                   "seconds: a fork handler of what is preloaded (os.register_at_fork, "
                   "pthread_atfork) does not return\n",
                   child.pid, kSparePatience.count());
    }
}

}  // namespace warmfork
