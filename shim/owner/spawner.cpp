#include "owner/spawner.hpp"

#include "channel/message_socket.hpp"
#include "channel/stopping_point.hpp"
#include "owner/child_start.hpp"
#include "owner/in_flight.hpp"
#include "owner/interpreted_request.hpp"
#include "owner/spawn_cold.hpp"

namespace warmfork {
namespace {

// A child that does not start in time is given up, and the next one is tried, if it is prepared.
constexpr int kMostLateChildren = 2;

// A template may end, or its image give way to another variant, between choice and command.
constexpr int kMostLostTemplates = 8;

// Whoever waits for a fresh image while its files are written over and over is served cold after
// this many renewals.
constexpr int kMostRenewals = 5;

const ColdReason& asked_for() {
    static const ColdReason reason{WARMFORK_REASON_ASKED, "the cold backend was asked for"};
    return reason;
}

}  // namespace

/// A warm spawn, over all images and children that it tries.
struct Spawner::Attempt {
    const Request& request;
    const std::uint32_t count;
    const bool insists;  ///< on a warm child
    const bool is_python;
    PythonCommand command{};
    Selection selection{};

    bool is_to_be_repeated = false;  ///< what did not succeed may do so once more
    int dead_children = 0, late_children = 0, lost_templates = 0, renewals = 0, replacements = 0;
    Outcome of_late_child{};

    /// Finds what the request wants of an image. Sets `ret_cold` where none will do; for a request
    /// that insists on warm a failure comes with it.
    [[nodiscard]] Outcome examine(const TemplateProgram& program, ColdReason& ret_cold) {
        if (Outcome failure = check_size(request)) {
            ret_cold = {WARMFORK_REASON_LIMITS, failure->text};
            return failure;
        }
        ret_cold = find_selection(request, program.is_python, program.path, command, selection);
        selection.children = count;
        return {};
    }
};

Outcome Spawner::spawn(const Request& request, std::uint32_t count,
                       std::vector<Spawned>& ret_spawned) {
    std::vector<Spawned> all;
    while (all.size() < count) {
        const auto left = count - static_cast<std::uint32_t>(all.size());
        std::vector<Spawned> spawned;
        if (Outcome failure =
                spawn_together(request, std::min(left, source_.most_at_once()), spawned)) {
            for (const Spawned& child : all) source_.end(child);
            return failure;
        }
        all.insert(all.end(), spawned.begin(), spawned.end());
    }
    ret_spawned = std::move(all);
    return {};
}

/// Chooses the backend: all of them are warm, or all are cold.
Outcome Spawner::spawn_together(const Request& request, std::uint32_t count,
                                std::vector<Spawned>& ret_spawned) {
    const warmfork_backend backend = choose_backend(request.backend(), policy_.backend);
    if (backend == WARMFORK_BACKEND_COLD)
        return spawn_cold(request, count, asked_for(), ret_spawned);
    const bool insists = backend == WARMFORK_BACKEND_WARM;
    ColdReason reason;
    const auto attempt = [&] {
        reason = {};
        return spawn_warm(request, count, insists, reason, ret_spawned);
    };
    Outcome failure = insists ? outwait_descriptors_in_flight({}, attempt) : attempt();
    if ((failure || reason) && was_interrupted())
        return make_failure(Stage::hand_off, EINTR, "the spawn was broken off");
    if (!reason) return failure;
    if (insists || request.may_not_be_cold())
        return failure ? failure
                       : Outcome(Failure{Stage::eligibility, ENOTSUP, 0,
                                         "cannot be served warm: " + reason.text});
    return spawn_cold(request, count, reason, ret_spawned);
}

/// Sets `ret_cold` where the request is to be served cold; for a request that insists on warm a
/// failure comes with it.
Outcome Spawner::spawn_warm(const Request& given, std::uint32_t count, bool insists,
                            ColdReason& ret_cold, std::vector<Spawned>& ret_spawned) {
    TemplateProgram program;
    if (Outcome failure = source_.find_program(program, ret_cold)) return failure;
    if (program.is_fixed) {
        if (given.has_terminal())
            return Failure{Stage::eligibility, ENOTSUP, 0,
                           "the template's own command line has no terminal of its own"};
        Spawned spawned;
        if (Outcome failure = source_.run_own_command(given, spawned)) return failure;
        ++handed_off_;
        ret_spawned = {std::move(spawned)};
        return {};
    }
    const InterpretedRequest interpreted(given, program.is_python, program.path);
    Attempt attempt{interpreted.get(), count, insists, program.is_python};
    if (Outcome failure = attempt.examine(program, ret_cold); failure || ret_cold) return failure;
    const auto began = WaitClock::now();
    do {
        Wish wish{attempt.selection, attempt.request.lifetime(), began};
        wish.is_repeated = std::exchange(attempt.is_to_be_repeated, false);
        wish.may_wait =
            insists || (attempt.renewals > 0 && policy_.on_stale == WARMFORK_STALE_WAIT);
        std::unique_ptr<ChosenImage> image;
        Outcome failure = source_.choose(wish, image, ret_cold);
        if (failure || ret_cold) return failure;
        failure = spawn_from(*image, attempt, ret_cold, ret_spawned);
        if (!attempt.is_to_be_repeated) return failure;
    } while (true);
}

/// Asks what is different for this request, this owner and these files. Then it makes the record,
/// and has it run by a parked child, or by one that is forked for it.
Outcome Spawner::spawn_from(ChosenImage& image, Attempt& attempt, ColdReason& ret_cold,
                            std::vector<Spawned>& ret_spawned) {
    ret_cold = find_reason(image, attempt);
    // A file that has come since is a change as well: then there is to be another image.
    if (ret_cold.reason == WARMFORK_REASON_SHADOWED && image.ask_whether_stale()) ret_cold = {};
    if (ret_cold) return {};
    const OwnerState now = read_owner_state();
    ret_cold = compare_owner(image, now, attempt);
    if (ret_cold || attempt.is_to_be_repeated) return {};

    const Request& request = attempt.request;
    const bool serves_stale = policy_.on_stale == WARMFORK_STALE_SERVE;
    bool is_known = true;
    Outcome failure = image.check_freshness(serves_stale, is_known);
    ChildRecord record;
    if (!failure)
        failure =
            make_child_record(request, image.state_at_start(), now, image.ties(), record, ret_cold);
    if (ret_cold) return failure;
    // Where nobody knows the template looks, at a fork.
    if (!failure && attempt.count == 1 && is_known && attempt.dead_children < kHandOffTries) {
        failure = hand_off_to_parked(image, record, attempt, ret_spawned);
        if (attempt.is_to_be_repeated) return {};
        if (failure) describe(*failure, request);
    }
    if (!failure && ret_spawned.empty()) {
        failure = image.fork_on_command(record, request, attempt.count, serves_stale, ret_spawned);
        if (failure) describe(*failure, request);
        if (!failure) forked_ += attempt.count;
    }
    if (failure) ret_cold = judge(image, *failure, attempt);
    return failure;
}

/// Sends the record to a parked child. Where there is none to be had, none is spawned, and there is
/// no failure.
Outcome Spawner::hand_off_to_parked(ChosenImage& image, const ChildRecord& record, Attempt& attempt,
                                    std::vector<Spawned>& ret_spawned) {
    stopping_point("owner.before-hand-off");
    Born* parked = image.take_parked();
    if (!parked) return std::move(attempt.of_late_child);
    stopping_point("owner.hand-off-told");
    Outcome failure = hand_off(image, record, *parked);
    if (!failure) {
        ret_spawned = {image.release_started()};
        ++handed_off_;
        return {};
    }
    // The child said what failed, and that is the answer. Otherwise it died before any user code.
    if (failure->stage != Stage::hand_off || failure->error_number == ECANCELED) return failure;
    if (is_late(failure)) {
        // Nobody knows how long a wait that was broken off would have been.
        if (!was_interrupted()) image.note_late_child();
        const bool is_last = image.is_leased() || ++attempt.late_children == kMostLateChildren;
        attempt.is_to_be_repeated = !is_last && !was_interrupted();
        attempt.of_late_child = failure;
        return failure;
    }
    attempt.of_late_child.reset();
    // A template that still can forks one on command then.
    attempt.is_to_be_repeated = ++attempt.dead_children < kHandOffTries || !image.is_leased();
    return failure;
}

/// Sends the record to the child and waits until it has started. Fails at stage hand_off where it
/// was lost before it ran any user code, which is nobody's fault but may happen again with the
/// next. With ECANCELED it may have run: it began in that very moment.
Outcome Spawner::hand_off(ChosenImage& image, const ChildRecord& record, Born& parked) {
    ReplyPipe reply;
    if (int error = reply.open())
        return make_failure(Stage::descriptors, error, "cannot make a pipe for the reply");
    if (Outcome failure = send_record(record, parked, reply.write_end())) return failure;
    reply.close_write_end();
    stopping_point("owner.record-sent");
    Outcome failure = await_start(parked, reply.read_end(), WaitClock::now() + kStartPatience);
    stopping_point("owner.start-heard");
    if (!is_late(failure)) return failure;
    // Nothing may be started in its place before it is known that it has not begun.
    image.end_parked();
    const Outcome last = await_start(parked, reply.read_end(), WaitClock::now());
    if (!last)
        return Failure{Stage::hand_off, ECANCELED, 0,
                       "the child began in the moment in which it was given up, and was ended: " +
                           failure->text};
    return last->stage == Stage::hand_off ? failure : last;
}

/// Finds why the request cannot be served from this image, which fits it otherwise.
ColdReason Spawner::find_reason(ChosenImage& image, const Attempt& attempt) {
    if (!attempt.is_python || !image.is_checked())
        return find_common_reason(attempt.request, image.traits());
    return find_image_reason(attempt.request, attempt.command, image.traits(), shadows_);
}

/// Replaces an image that does not fit this process any more, where another one would.
ColdReason Spawner::compare_owner(ChosenImage& image, const OwnerState& now, Attempt& attempt) {
    const OwnerChange change = image.find_change(now);
    if (change.text.empty()) return {};
    if (!change.is_lasting) image.replace(change);
    attempt.is_to_be_repeated =
        !change.is_lasting && attempt.insists && attempt.replacements++ == 0;
    if (attempt.is_to_be_repeated) return {};
    return {WARMFORK_REASON_OWNER_CHANGED, change.text};
}

/// Judges why a child could not be had: another image may have one, or the request is to be cold
/// for the reason returned. NONE means an error, which a cold child would meet as well.
ColdReason Spawner::judge(ChosenImage& image, const Failure& failure, Attempt& attempt) {
    if (failure.stage == Stage::stale) {
        image.note_failure(failure);
        const bool waits = attempt.insists || policy_.on_stale == WARMFORK_STALE_WAIT;
        attempt.is_to_be_repeated = waits && attempt.renewals++ < kMostRenewals;
        if (attempt.is_to_be_repeated) return {};
        return {WARMFORK_REASON_STALE, failure.text};
    }
    if (failure.stage == Stage::hand_off && failure.error_number == EPIPE && !image.is_leased() &&
        attempt.lost_templates++ < kMostLostTemplates) {
        image.note_failure(failure);
        attempt.is_to_be_repeated = true;
        return {};
    }
    if (failure.stage == Stage::hand_off && failure.error_number == ETIMEDOUT) {
        image.note_failure(failure);
        return {WARMFORK_REASON_UNRESPONSIVE, failure.text};
    }
    if (failure.stage == Stage::gate) return {WARMFORK_REASON_GATE, failure.text};
    if (failure.stage == Stage::fork) return {WARMFORK_REASON_FORK, failure.text};
    if (!is_lack_of_descriptors(failure)) return {};
    source_.free_descriptors();
    return {WARMFORK_REASON_LIMITS, failure.text};
}

/// Spawns without any template, for the reason that is given.
Outcome Spawner::spawn_cold(const Request& request, std::uint32_t count, const ColdReason& reason,
                            std::vector<Spawned>& ret_spawned) {
    ret_spawned.clear();
    Outcome failure = spawn_without_template(request, count, reason, ret_spawned);
    if (failure) return failure;
    cold_ += count;
    cold_by_reason_[reason.reason] += count;
    source_.note_cold(reason.reason);
    return {};
}

Outcome Spawner::explain(const Request& given, ColdReason& ret_reason) {
    if (choose_backend(given.backend(), policy_.backend) == WARMFORK_BACKEND_COLD) {
        ret_reason = asked_for();
        return {};
    }
    TemplateProgram program;
    Outcome failure = source_.find_program(program, ret_reason);
    if (failure) return ret_reason ? Outcome() : failure;
    const InterpretedRequest interpreted(given, program.is_python, program.path);
    Attempt attempt{interpreted.get(), 1, false, program.is_python};
    if (attempt.examine(program, ret_reason) || ret_reason) return {};
    Wish wish{attempt.selection, attempt.request.lifetime(), WaitClock::now()};
    wish.is_question = true;
    std::unique_ptr<ChosenImage> image;
    failure = source_.choose(wish, image, ret_reason);
    if (failure) return ret_reason ? Outcome() : failure;
    if (ret_reason || !image) return {};
    ret_reason = find_reason(*image, attempt);
    if (ret_reason) return {};
    if (OwnerChange change = image->find_change(read_owner_state()); !change.text.empty())
        ret_reason = {WARMFORK_REASON_OWNER_CHANGED, std::move(change.text)};
    return {};
}

void Spawner::counts(warmfork_counts& ret_counts) const {
    ret_counts.handed_off = handed_off_;
    ret_counts.forked = forked_;
    ret_counts.cold = cold_;
    for (std::size_t reason = 0; reason < WARMFORK_REASON_COUNT; ++reason)
        ret_counts.cold_by_reason[reason] = cold_by_reason_[reason];
}

}  // namespace warmfork
