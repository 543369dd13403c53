// How an owner waits for its template: for the hello, for readiness, for children, for room.
#include <poll.h>
#include <signal.h>
#include <sys/socket.h>
#include <unistd.h>

#include <algorithm>

#include "channel/doorbell.hpp"
#include "owner/template_process.hpp"
#include "protocol/messages.hpp"

namespace warmfork {
namespace {

// How often a template that is late is looked at.
constexpr std::chrono::milliseconds kHelloLook{100};

Failure timed_out(const char* what) {
    return make_failure(Stage::launch, ETIMEDOUT, what);
}

}  // namespace

bool TemplateProcess::wait_until(Lock& lock, Deadline deadline, const std::function<bool()>& done,
                                 bool may_break_off) {
    const bool asks = may_break_off && may_be_interrupted();
    while (true) {
        drain();
        spares_.reap_ended();
        if (done()) return true;
        if (ended_ || state_ == State::broken) return false;
        if (hello_by_ && !channel_.has_said_hello() && Clock::now() >= *hello_by_) {
            // The template may have said it in time, with nobody listening since.
            receive_messages();
            if (!channel_.has_said_hello() && !put_off_hello()) give_up_silent();
            continue;
        }
        if (deadline && Clock::now() >= *deadline) {
            // Whoever does not wait also has to learn that it has ended.
            if (channel_.is_polled() || !has_ended()) return false;
            settle_after_end();
            continue;
        }
        const Deadline next = earlier_of_hello(deadline);
        if (!asks)
            sleep(lock, next);
        else if (sleep_and_ask(lock, next))
            return done();
    }
}

bool TemplateProcess::sleep_and_ask(Lock& lock, Deadline deadline) {
    sleep(lock, next_look(deadline));
    if (!may_be_interrupted()) return false;
    lock.unlock();
    const bool breaks_off = check_interruption();
    lock.lock();
    return breaks_off;
}

void TemplateProcess::sleep(Lock& lock, Deadline deadline) {
    const OwnerChannel::Woken woken = channel_.sleep(lock, deadline, pidfd_);
    if (woken.by_end) settle_after_end();
    if (woken.by_message) receive_messages();
}

/// Waits until the command ring has more room than now, the deadline has passed, the template has
/// ended, or the wait was interrupted.
void TemplateProcess::wait_for_room(Lock& lock, Deadline deadline) {
    const std::uint64_t before = channel_.taken();
    const OwnerChannel::RoomWanted wanted(channel_);
    while (!ended_ && state_ != State::broken && Clock::now() < deadline) {
        drain();
        // It is announced before the look at what was taken, so that the template rings if it takes
        // more later.
        channel_.announce_sleep();
        if (channel_.taken() != before || sleep_and_ask(lock, deadline)) break;
    }
}

Outcome TemplateProcess::wait_ready(Deadline deadline) {
    Lock lock(mutex_);
    if (state_ == State::ready && !ended_) return {};
    wait_until(lock, deadline, [this] { return state_ != State::starting; });
    switch (state_) {
        case State::ready:
            return {};
        case State::refused:
            return Failure{Stage::gate, refusal_error_, 0, refusal_};
        case State::broken:
            return Failure{Stage::launch, refusal_error_, 0, refusal_};
        case State::starting:
            break;
    }
    if (ended_) return end_failure();
    return timed_out("the template is not ready yet");
}

Outcome TemplateProcess::report(std::string& ret_json) {
    Lock lock(mutex_);
    const std::uint64_t id = ++last_id_;
    pending_[id] = {};
    if (int error = channel_.push(make_frame(FrameKind::report, id))) {
        pending_.erase(id);
        return make_failure(Stage::launch, error, "cannot ask the template for its report");
    }
    channel_.ring();
    wait_until(lock, Clock::now() + kStartPatience, [&] { return pending_[id].is_answered; });
    ret_json = std::move(pending_[id].report);
    pending_.erase(id);
    if (ret_json.empty() && !ended_ && state_ != State::broken)
        return make_failure(Stage::launch, ETIMEDOUT, "the template does not answer");
    if (ret_json.empty()) return Failure{Stage::launch, EPIPE, 0, "the template has ended"};
    return {};
}

TemplateProcess::Clock::duration TemplateProcess::start_took() {
    const Lock lock(mutex_);
    return start_took_;
}

Outcome TemplateProcess::wait_parked(std::uint32_t count, Deadline deadline) {
    if (Outcome failure = wait_ready(deadline)) return failure;
    Lock lock(mutex_);
    while (true) {
        const auto are_there = [&] { return spares_.size() >= count; };
        if (!wait_until(lock, deadline, [&] { return are_there() || lacks_descriptors_; })) break;
        if (!are_there())
            return make_failure(Stage::descriptors, EMFILE,
                                "no number is free for the connection to a parked child: children "
                                "are forked when they are needed. Raise the limit on open files");
        const bool is_asleep = channel_.is_peer_asleep();
        if (is_asleep && channel_.is_drained() && spares_.count_parked() >= count) return {};
        // It has slept through a hand-off, for which nobody has rung.
        if (is_asleep && !channel_.is_drained()) channel_.ring();
        if (deadline && Clock::now() >= *deadline) break;
        // A spare announces itself on its mailbox, and a template that goes to sleep tells nobody.
        lock.unlock();
        ::poll(nullptr, 0, 1);
        const bool breaks_off = check_interruption();
        lock.lock();
        if (breaks_off) break;
    }
    if (ended_) return Failure{Stage::launch, ECHILD, 0, "the template has ended"};
    return timed_out("not enough children are parked yet");
}

void TemplateProcess::note_late_child() {
    const std::lock_guard lock(mutex_);
    spares_.note_late(last_born_);
}

bool TemplateProcess::is_slow() const {
    const std::lock_guard lock(mutex_);
    return spares_.is_slow();
}

/// Kills a template that does not answer. With its end it is known which children it has made.
void TemplateProcess::kill_stuck(Lock& lock) {
    is_stuck_ = true;
    signal_pidfd(pidfd_.get(), SIGKILL);
    wait_until(
        lock, Clock::now() + kKillPatience, [this] { return ended_; }, false);
}

void TemplateProcess::end_silent() {
    is_stuck_ = true;
    signal_pidfd(pidfd_.get(), SIGKILL);
}

Deadline TemplateProcess::earlier_of_hello(Deadline deadline) const {
    if (!hello_by_ || channel_.has_said_hello()) return deadline;
    return deadline ? std::min(deadline, hello_by_) : hello_by_;
}

/// An interpreter on its way to the hello computes and reads files. Where it is late because it
/// gets no processor, or no disk answers, it is no other program. Returns false where it waits for
/// something else, or has computed long enough.
bool TemplateProcess::put_off_hello() {
    const char state = process_state(facts_.process.pid);
    if (channel_.has_hung_up() || (state != 'R' && state != 'D')) return false;
    const std::uint64_t ticks = process_statistic(facts_.process.pid, kUserTimeField) +
                                process_statistic(facts_.process.pid, kSystemTimeField);
    const auto per_second = static_cast<std::uint64_t>(::sysconf(_SC_CLK_TCK));
    if (std::chrono::seconds(ticks / per_second) >= kHelloPatience) return false;
    hello_by_ = Clock::now() + kHelloLook;
    return true;
}

/// Ends a program that has not proved to be a template, with all that it has started and that has
/// not left its process group, such as the rest of a frozen program.
void TemplateProcess::end_unproven() {
    const auto group = 1u << 2;  // PIDFD_SIGNAL_PROCESS_GROUP, from Linux 6.9 on
    if (::syscall(SYS_pidfd_send_signal, pidfd_.get(), SIGKILL, nullptr, group) == 0 ||
        errno == ESRCH)
        return;
    if (open_process(facts_.process)) ::kill(-facts_.process.pid, SIGKILL);
}

/// Gives up a program that does not say hello: it is not what was to be started.
void TemplateProcess::give_up_silent() {
    end_unproven();
    state_ = State::broken;
    refusal_error_ = ENOEXEC;
    refusal_ =
        facts_.program + " was started as a template and is none: " +
        (channel_.has_hung_up() ? "it runs another program"
                                : "it has not said that it is the interpreter it was to be") +
        no_interpreter_hint();
}

std::uint64_t TemplateProcess::count_signs_of_life() {
    drain();
    return channel_.taken() + last_born_;
}

std::uint64_t TemplateProcess::signs_of_life() {
    const std::lock_guard lock(mutex_);
    return count_signs_of_life();
}

std::size_t TemplateProcess::born_of(std::uint64_t id) {
    const std::lock_guard lock(mutex_);
    drain();
    const auto pending = pending_.find(id);
    return pending == pending_.end() ? 0 : pending->second.born.size();
}

/// Takes the turn to command. Returns 0; EAGAIN where another thread has it and this one does not
/// wait; ETIMEDOUT where whoever has it waits in vain, and where that is this very thread, which
/// runs a signal's handler meanwhile; EINTR where the wait was interrupted.
int TemplateProcess::take_command_turn(std::unique_lock<std::timed_mutex>& turn, bool nonblocking) {
    const bool is_own = commander_ == std::this_thread::get_id();
    if (nonblocking) return !is_own && turn.try_lock() ? 0 : EAGAIN;
    if (is_own) return ETIMEDOUT;
    std::uint64_t before;
    do {
        before = signs_of_life();
        const auto deadline = Clock::now() + kStartPatience;
        while (Clock::now() < deadline) {
            if (turn.try_lock_until(*next_look(deadline))) return 0;
            if (check_interruption()) return EINTR;
        }
    } while (signs_of_life() != before);
    return ETIMEDOUT;
}

}  // namespace warmfork
