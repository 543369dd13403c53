#include "service/named_template.hpp"

#include <fmt/format.h>

#include <algorithm>

#include "owner/image_source.hpp"
#include "owner/pointers.hpp"
#include "owner/waiting.hpp"

namespace warmfork::service {
namespace {

using std::chrono::milliseconds;
using std::chrono::seconds;

// A template that does not start is tried again after a while, longer each time.
constexpr milliseconds kFirstBackOff{1000};
constexpr seconds kLongestBackOff{60};
// Whoever waits for a fresh image while its files are written over and over is served cold after
// this many renewals.
constexpr int kMostRenewals = 5;
// The most parked children that are asked for because clients wait.
constexpr std::uint32_t kMostSparesForWaiting = 64;
// A template that does nothing for this long is asked something that it answers at once, if it can.
constexpr seconds kSilence{1};

/// Lets go of the template, and of what it was asked: another one will serve, or this one has.
void release_template(NamedTemplate::Ask& ask) {
    if (ask.process) {
        ask.process->cancel_look(ask.look);
        ask.process->cancel_look(ask.question);
    }
    ask.process.reset();
    ask.look = ask.question = 0;
    ask.is_verified = false;
    ask.silent_since = {};
}

Refusal refusal_of(const Failure& failure, const ColdReason& cold) {
    return {static_cast<std::uint64_t>(failure.stage),
            static_cast<std::uint64_t>(failure.error_number),
            static_cast<std::uint64_t>(cold.reason), failure.text};
}

Refusal refusal_of(const ColdReason& cold) {
    return {0, 0, static_cast<std::uint64_t>(cold.reason), cold.text};
}

}  // namespace

NamedTemplate::NamedTemplate(Definition definition)
    : definition_(std::move(definition)), images_(definition_.images) {}

void NamedTemplate::add(Ask ask) {
    if (ask.since == Clock::time_point()) ask.since = Clock::now();
    // Behind all that this client has asked for before, one turn for each child: so the first of
    // another client does not wait for all of them.
    ask.turn = turn_;
    for (const Ask& other : asks_)
        if (other.client == ask.client)
            ask.turn = std::max(ask.turn, other.turn + other.wanted.count);
    const auto place = std::find_if(asks_.begin(), asks_.end(),
                                    [&](const Ask& other) { return other.turn > ask.turn; });
    asks_.insert(place, std::move(ask));
    last_used_ = Clock::now();
}

std::list<NamedTemplate::Ask> NamedTemplate::take_asks() {
    for (Ask& ask : asks_) release_template(ask);
    return std::exchange(asks_, {});
}

void NamedTemplate::drop(std::uint64_t client) {
    asks_.remove_if([&](Ask& ask) {
        if (ask.client == client) release_template(ask);
        return ask.client == client;
    });
}

Outcome NamedTemplate::start() {
    if (failure_ && Clock::now() < not_before_) return failure_;
    Outcome failure = images_.start();
    if (failure) note_failure(*failure);
    return failure;
}

void NamedTemplate::note_failure(const Failure& failure) {
    failure_ = failure;
    back_off_ = std::clamp<Clock::duration>(back_off_ * 2, kFirstBackOff, kLongestBackOff);
    not_before_ = Clock::now() + back_off_;
}

std::vector<NamedTemplate::Answer> NamedTemplate::serve() {
    std::vector<Answer> answers;
    answered_.clear();
    empty_.clear();
    // Where somebody asks, the failure is theirs to find.
    if (const Outcome failure = images_.resume(); failure && asks_.empty()) note_failure(*failure);
    for (auto ask = asks_.begin(); ask != asks_.end();) {
        Answer answer{&*ask, {}, {}, {}, true};
        const Step step = serve_in_time(*ask, answer);
        if (step == Step::waits) {
            ++ask;
            continue;
        }
        answer.is_last = step == Step::refused || ask->wanted.count == 1;
        answers.push_back(std::move(answer));
        if (step == Step::granted) {
            turn_ = std::max(turn_, ask->turn);
            if (--ask->wanted.count > 0) {
                ask = put_back(ask);
                continue;
            }
        }
        const auto done = ask++;
        answered_.splice(answered_.end(), asks_, done);
    }
    want_spares();
    return answers;
}

/// Puts an ask that gets one of several behind those whose turn is before its next. Returns whose
/// turn it is now.
std::list<NamedTemplate::Ask>::iterator NamedTemplate::put_back(std::list<Ask>::iterator ask) {
    const auto next = std::next(ask);
    ++ask->turn;
    const auto place =
        std::find_if(next, asks_.end(), [&](const Ask& other) { return other.turn > ask->turn; });
    asks_.splice(place, asks_, ask);
    return place == next ? ask : next;
}

/// Is it to wait for minutes, rather than be served cold?
bool NamedTemplate::may_wait(const Ask& ask) const {
    return (ask.wanted.flags & kLeaseMayWait) != 0 || definition_.on_stale == WARMFORK_STALE_WAIT;
}

/// Waits for an image, or a child of it, but not for ever.
NamedTemplate::Step NamedTemplate::serve_in_time(Ask& ask, Answer& ret_answer) {
    const Step step = try_to_serve(ask, ret_answer);
    const bool is_short = !may_wait(ask) && !ask.process;
    const seconds patience = is_short ? TemplateProcess::kReadyPatience : seconds(kWarmPatience);
    if (step != Step::waits || Clock::now() < ask.since + patience) return step;
    release_template(ask);
    if (!ask.why) ask.why = {WARMFORK_REASON_UNRESPONSIVE, "the template has no child for it"};
    ret_answer.refusal = {
        static_cast<std::uint64_t>(Stage::launch), ETIMEDOUT,
        static_cast<std::uint64_t>(ask.why.reason),
        fmt::format("no child for it within {} seconds: {}", patience.count(), ask.why.text)};
    return Step::refused;
}

NamedTemplate::Step NamedTemplate::try_to_serve(Ask& ask, Answer& ret_answer) {
    if (!ask.process || ask.process->is_lost()) {
        release_template(ask);
        if (const Step step = choose(ask, ret_answer); !ask.process) return step;
    }
    if (std::find(empty_.begin(), empty_.end(), ask.process.get()) != empty_.end())
        return wait_for_template(ask, ret_answer);
    if (const Step step = verify(ask, ret_answer); step != Step::granted)
        return step == Step::waits && ask.process ? wait_for_template(ask, ret_answer) : step;
    // The child's lifetime is its client's, and this service sees to it, not the template.
    ret_answer.spare = ask.process->take_spare(Lifetime::detached);
    if (!ret_answer.spare) {
        empty_.push_back(ask.process.get());
        return wait_for_template(ask, ret_answer);
    }
    ask.process->wake_to_refill();
    ret_answer.process = ask.process;
    last_used_ = Clock::now();
    return Step::granted;
}

/// Finds the image; `ask.process` stays empty where there is none yet, or none to be had.
NamedTemplate::Step NamedTemplate::choose(Ask& ask, Answer& ret_answer) {
    if (failure_ && Clock::now() < not_before_) {
        ret_answer.refusal = refusal_of(*failure_, {});
        return Step::refused;
    }
    const std::vector<char*> environment = mutable_pointers_to(ask.wanted.environment);
    Selection selection{ask.wanted.options, (ask.wanted.flags & kLeaseIsolated) != 0, environment};
    const bool insists =
        (ask.wanted.flags & kLeaseMayWait) != 0 || (ask.renewals > 0 && may_wait(ask));
    ColdReason cold;
    Process process;
    const Outcome failure = images_.choose(selection, insists, Clock::now(), process, cold);
    ask.why = cold;
    if (failure && failure->error_number == ETIMEDOUT) return Step::waits;
    const bool is_restarting =
        cold.reason == WARMFORK_REASON_STALE || cold.reason == WARMFORK_REASON_RESTARTING;
    if (is_restarting && may_wait(ask) && !failure) return Step::waits;
    if (failure) {
        if (!cold) note_failure(*failure);
        ret_answer.refusal = refusal_of(*failure, cold);
        return Step::refused;
    }
    if (cold) {
        ret_answer.refusal = refusal_of(cold);
        return Step::refused;
    }
    failure_.reset();
    back_off_ = {};
    ask.process = std::move(process);
    return Step::granted;
}

/// Verifies the image. It is granted where that was up to date after the client had asked.
NamedTemplate::Step NamedTemplate::verify(Ask& ask, Answer& ret_answer) {
    TemplateProcess& process = *ask.process;
    const bool takes_stale = serves_stale() && ask.client != kNoClient;
    const ImageWatch::Freshness freshness = process.watch().look();
    if (freshness == ImageWatch::Freshness::stale && !takes_stale)
        return renew(ask, process.change(), ret_answer);
    if (freshness == ImageWatch::Freshness::fresh || takes_stale || ask.is_verified)
        return Step::granted;
    if (ask.look == 0) {
        ask.mount_changes = process.watch().mount_changes();
        ask.look = process.look();
        return Step::waits;
    }
    const std::optional<bool> was_fresh = process.take_look_answer(ask.look);
    if (!was_fresh) return Step::waits;
    ask.look = 0;
    if (!*was_fresh) return renew(ask, process.change(), ret_answer);
    process.watch().mounts_checked(ask.mount_changes);
    ask.is_verified = true;
    return Step::granted;
}

NamedTemplate::Step NamedTemplate::renew(Ask& ask, const std::string& change, Answer& ret_answer) {
    images_.renew(ask.process, change, serves_stale());
    release_template(ask);
    // For a layer the old image stays, for others, until there is the new one.
    if (serves_stale()) return Step::waits;
    if (may_wait(ask) && ask.renewals++ < kMostRenewals) return Step::waits;
    ret_answer.refusal = {static_cast<std::uint64_t>(Stage::stale), ESTALE, WARMFORK_REASON_STALE,
                          change};
    return Step::refused;
}

/// Waits for the template. It is refused where the template, which has nothing for this client yet,
/// takes no commands any more, and is replaced.
NamedTemplate::Step NamedTemplate::wait_for_template(Ask& ask, Answer& ret_answer) {
    TemplateProcess& process = *ask.process;
    const auto now = Clock::now();
    const std::uint64_t signs = process.signs_of_life();
    if (ask.silent_since == Clock::time_point() || signs != ask.signs) {
        process.cancel_look(std::exchange(ask.question, 0));
        ask.signs = signs;
        ask.silent_since = now;
        return Step::waits;
    }
    if (ask.question == 0 && now >= ask.silent_since + kSilence) ask.question = process.look();
    if (now < ask.silent_since + kStartPatience) return Step::waits;
    process.end_silent();
    const ColdReason reason{
        WARMFORK_REASON_UNRESPONSIVE,
        "the template does not answer: it is stopped, or a fork handler of what is preloaded does "
        "not return"};
    images_.abandon(ask.process, reason);
    release_template(ask);
    if (ask.wanted.flags & kLeaseMayWait) return Step::waits;
    ret_answer.refusal = refusal_of(reason);
    return Step::refused;
}

bool NamedTemplate::retry_spares() {
    for (const Process& process : images_.processes())
        if (process->lacks_descriptors()) {
            wanted_spares_.reset();
            return true;
        }
    return false;
}

bool NamedTemplate::renew_stale() {
    bool was_stale = false;
    for (const Process& process : images_.processes()) {
        if (process->is_lost() || process->watch().look() != ImageWatch::Freshness::stale) continue;
        images_.renew(process, process->change(), serves_stale());
        was_stale = true;
    }
    return was_stale;
}

bool NamedTemplate::learn() {
    const std::uint64_t before = images_.starts();
    for (const Process& process : images_.processes())
        images_.renew(process, "what its children import is preloaded", true);
    return images_.starts() > before;
}

/// Asks for as many parked children as there are clients that wait for one.
void NamedTemplate::want_spares() {
    const auto waiting =
        static_cast<std::uint32_t>(std::min<std::size_t>(asks_.size(), kMostSparesForWaiting));
    const std::uint32_t wanted = waiting > definition_.images.spares_least ? waiting : 0;
    if (wanted == wanted_spares_) return;
    // Fewer are asked for only when it has become calm: where the template gives up a spare in the
    // moment of its hand-off, the spawn has to try again.
    if (wanted_spares_ && wanted < *wanted_spares_ && Clock::now() < last_used_ + kCalm) return;
    const std::uint32_t least = std::max(wanted, definition_.images.spares_least);
    // Where a ring has no room now, the next call says it again.
    if (images_.set_spares(least, std::max(least, definition_.images.spares_most)) == 0)
        wanted_spares_ = wanted;
}

}  // namespace warmfork::service
