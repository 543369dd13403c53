#include "owner/template_handle.hpp"

#include <fcntl.h>
#include <poll.h>
#include <signal.h>
#include <sys/socket.h>
#include <sys/wait.h>

#include <algorithm>
#include <array>
#include <cstdlib>

#include "channel/stopping_point.hpp"
#include "child/setup.hpp"
#include "owner/backend.hpp"
#include "owner/cold.hpp"
#include "owner/interpreted_request.hpp"
#include "owner/keeping.hpp"
#include "owner/request_eligibility.hpp"
#include "owner/spawn_cold.hpp"
#include "protocol/layout.hpp"

namespace warmfork {
namespace {

// A parked child that dies in the moment of its hand-off is replaced by the next. Where that many
// die it is the record that kills them.
constexpr int kHandOffTries = 4;

// One that does not start in time is given up, and the next one is tried, if it is prepared.
constexpr int kMostLateChildren = 2;

// While a child is waited for, its template is looked at so often.
constexpr std::chrono::milliseconds kLook{500};

// Who insists on a warm child waits so long for its template.
constexpr std::chrono::minutes kWarmPatience{5};

// A template may end, or its image give way to another variant, between choice and command.
constexpr int kMostLostTemplates = 8;

// Who waits for a fresh image while its files are written over and over is served cold after this
// many.
constexpr int kMostRenewals = 5;

// How long a template may take to look whether it is out of date.
constexpr std::chrono::seconds kLookPatience{1};

/// Is the image out of date? Where only the template can tell it is asked. One that does not answer
/// is taken as up to date.
bool is_out_of_date(TemplateProcess& process) {
    const TemplateProcess::Freshness known = process.freshness();
    if (known != TemplateProcess::Freshness::unknown)
        return known == TemplateProcess::Freshness::stale;
    const std::uint64_t look = process.look();
    if (look == 0) return false;
    const auto deadline = TemplateProcess::Clock::now() + kLookPatience;
    while (TemplateProcess::Clock::now() < deadline) {
        process.attend();
        if (const std::optional<bool> was_fresh = process.looked(look)) return !*was_fresh;
        ::poll(nullptr, 0, 1);
    }
    process.forget_look(look);
    return false;
}

std::vector<ProcessIdentity> identities_of(const std::vector<Spawned>& spawned) {
    std::vector<ProcessIdentity> identities;
    for (const Spawned& child : spawned) identities.push_back(child.identity());
    return identities;
}

/// Is it a limit of this process, or what it is, that keeps it from starting a template? A cold
/// child needs none.
bool is_in_the_way_of_templates(const Failure& failure) {
    constexpr std::array kErrors{EFBIG, EMFILE, ENFILE, ENOTSUP, ETOOMANYREFS};
    return failure.stage == Stage::launch &&
           std::find(kErrors.begin(), kErrors.end(), failure.error_number) != kErrors.end();
}

}  // namespace

TemplateHandle::TemplateHandle(Definition definition)
    : owner_(::getpid()),
      backend_(definition.backend),
      on_stale_(definition.on_stale),
      is_python_(definition.images.is_python),
      program_(definition.images.program),
      images_(std::move(definition.images)) {}

Outcome TemplateHandle::start() {
    Outcome failure = images_.start();
    const bool may_be_cold =
        choose_backend(WARMFORK_BACKEND_DEFAULT, backend_) != WARMFORK_BACKEND_WARM;
    if (failure && may_be_cold && is_in_the_way_of_templates(*failure)) return {};
    return failure;
}

/// The image that a plain spawn of this moment would come from.
Outcome TemplateHandle::ready_image(Deadline deadline, Process& ret_process) {
    const Selection selection = images_.plain_selection();
    ColdReason reason;
    Outcome failure = images_.choose(selection, true, deadline, ret_process, reason);
    if (!failure && !ret_process)
        return Failure{Stage::launch, ETIMEDOUT, 0, "the template is not ready: " + reason.text};
    return failure;
}

Outcome TemplateHandle::wait_ready(Deadline deadline) {
    Process process;
    return ready_image(deadline, process);
}

Outcome TemplateHandle::wait_parked(std::uint32_t count, Deadline deadline) {
    Process process;
    if (Outcome failure = ready_image(deadline, process)) return failure;
    return process->wait_parked(count, deadline);
}

pid_t TemplateHandle::pid() {
    const Process process = images_.first();
    return process && !process->has_ended() ? process->pid() : 0;
}

std::string TemplateHandle::progress() {
    const Process process = images_.first();
    return process ? process->progress() : std::string();
}

Outcome TemplateHandle::report(std::string& ret_json) {
    Process process;
    if (Outcome failure = ready_image(WaitClock::now() + kWarmPatience, process)) return failure;
    return process->report(ret_json);
}

void TemplateHandle::counts(warmfork_counts& ret_counts) const {
    ret_counts.handed_off = handed_off_;
    ret_counts.forked = forked_;
    ret_counts.cold = cold_;
    ret_counts.template_starts = images_.starts();
    for (int reason = 0; reason < WARMFORK_REASON_COUNT; ++reason)
        ret_counts.cold_by_reason[reason] = cold_by_reason_[reason];
}

Outcome TemplateHandle::spawn(const Request& request, std::uint32_t count,
                              std::vector<Spawned>& ret_spawned) {
    const warmfork_backend backend = choose_backend(request.backend(), backend_);
    ColdReason reason{WARMFORK_REASON_ASKED, "the cold backend was asked for"};
    if (backend != WARMFORK_BACKEND_COLD) {
        reason = {};
        const InterpretedRequest interpreted(request, is_python_, program_);
        Outcome failure = spawn_warm(interpreted.get(), count, backend, reason, ret_spawned);
        if ((failure || reason) && was_interrupted())
            return make_failure(Stage::hand_off, EINTR, "the spawn was broken off");
        if (!reason) return failure;
        if (backend == WARMFORK_BACKEND_WARM || request.may_not_be_cold())
            return failure ? failure
                           : Outcome(Failure{Stage::eligibility, ENOTSUP, 0,
                                             "cannot be served warm: " + reason.text});
    }
    return spawn_cold_counted(request, count, reason, ret_spawned);
}

Outcome TemplateHandle::spawn_cold_counted(const Request& request, std::uint32_t count,
                                           const ColdReason& reason,
                                           std::vector<Spawned>& ret_spawned) {
    Outcome failure = spawn_without_template(request, count, reason, ret_spawned);
    if (!failure) {
        cold_ += count;
        cold_by_reason_[reason.reason] += count;
    }
    return failure;
}

ColdReason TemplateHandle::find_reason(const Request& request, const PythonCommand& command,
                                       TemplateProcess& process) {
    const std::vector<int> descriptors = process.image_descriptors();
    const ImageTraits image{process.pid(), descriptors, process.shadowable(), process.directory()};
    if (!is_python_ || is_unchecked_) return find_common_reason(request, image);
    return find_image_reason(request, command, image, shadows_);
}

/// Why no child of the template would be what a cold one of this moment is, or an empty text.
/// `ret_is_lasting`: nor would one of another template.
std::string TemplateHandle::find_change(const OwnerState& state, TemplateProcess& process,
                                        bool& ret_is_lasting) {
    std::string change = find_lasting_obstacle(state);
    ret_is_lasting = !change.empty();
    if (change.empty()) change = find_incompatible_change(process.state_at_start(), state);
    if (!change.empty() || can_look_at(process.pid()) || process.has_ended()) return change;
    if (process.could_look()) return "the owner has been confined since the template was started";
    if (!may_have_been_confined(state)) return {};
    ret_is_lasting = true;
    return "whether the owner is confined (Landlock) cannot be told, as it may not look at its "
           "template";
}

/// Replaces a template that does not fit this process any more, where another one would.
ColdReason TemplateHandle::check_state(const OwnerState& state, const Process& process,
                                       bool& ret_is_replaced) {
    bool is_lasting;
    const std::string change = find_change(state, *process, is_lasting);
    if (change.empty()) return {};
    // Threads that differ from each other would take turns in replacing it.
    ret_is_replaced = !is_lasting && !is_of_one_thread(process->state_at_start(), state);
    if (ret_is_replaced) images_.replace(process, {WARMFORK_REASON_RESTARTING, change});
    return {WARMFORK_REASON_OWNER_CHANGED, change};
}

/// Sets `ret_cold` where the request is to be served cold; with it a failure for who insists on
/// warm.
Outcome TemplateHandle::spawn_warm(const Request& request, std::uint32_t count,
                                   warmfork_backend backend, ColdReason& ret_cold,
                                   std::vector<Spawned>& ret_spawned) {
    const bool may_wait = backend == WARMFORK_BACKEND_WARM;
    if (Outcome failure = check_size(request)) {
        ret_cold = {WARMFORK_REASON_LIMITS, failure->text};
        return failure;
    }
    PythonCommand command;
    Selection selection;
    if ((ret_cold = find_selection(request, is_python_, program_, command, selection))) return {};
    selection.children = count;
    int lost_templates = 0, replacements = 0, renewals = 0;
    while (true) {
        Process process;
        Outcome failure = images_.choose(
            selection, may_wait || (renewals > 0 && on_stale_ == WARMFORK_STALE_WAIT),
            may_wait ? Deadline(WaitClock::now() + kWarmPatience) : Deadline(), process, ret_cold);
        if (failure && !ret_cold && is_in_the_way_of_templates(*failure))
            ret_cold = {WARMFORK_REASON_LIMITS, failure->text};
        if (failure || ret_cold) return failure;
        if ((ret_cold = find_reason(request, command, *process))) {
            // A file that has come since is a change as well: then there is to be another image.
            if (ret_cold.reason != WARMFORK_REASON_SHADOWED || !is_out_of_date(*process)) return {};
            ret_cold = {};
        }

        const OwnerState state = read_owner_state();
        bool is_replaced = false;
        if (ColdReason change = check_state(state, process, is_replaced)) {
            if (is_replaced && may_wait && replacements++ == 0) continue;
            ret_cold = std::move(change);
            return {};
        }
        const Freshness freshness = is_unchecked_ ? Freshness::fresh : process->freshness();
        const bool is_stale = freshness == Freshness::stale;
        if (is_stale && on_stale_ == WARMFORK_STALE_SERVE)
            images_.renew(process, process->change(), true);
        failure = is_stale && on_stale_ != WARMFORK_STALE_SERVE
                      ? Outcome(Failure{Stage::stale, ESTALE, 0, process->change()})
                      : spawn_in(*process, freshness, state, request, count, ret_cold, ret_spawned);
        if (!failure) return {};
        if (failure->stage == Stage::stale) {
            images_.renew(process, failure->text, false);
            const bool waits = may_wait || on_stale_ == WARMFORK_STALE_WAIT;
            if (waits && renewals++ < kMostRenewals) continue;
            ret_cold = {WARMFORK_REASON_STALE, failure->text};
            return failure;
        }
        if (failure->stage == Stage::hand_off && failure->error_number == EPIPE &&
            lost_templates++ < kMostLostTemplates) {
            images_.forget(process);
            continue;
        }
        if (failure->stage == Stage::hand_off && failure->error_number == ETIMEDOUT) {
            ret_cold = {WARMFORK_REASON_UNRESPONSIVE, failure->text};
            // One that was killed has to be replaced; one whose children are slow may still get
            // some that are prepared ahead of need.
            if (process->is_stuck()) images_.abandon(process, ret_cold);
            return failure;
        }
        if (failure->stage == Stage::gate)
            ret_cold = {WARMFORK_REASON_GATE, failure->text};
        else if (failure->stage == Stage::fork)
            ret_cold = {WARMFORK_REASON_FORK, failure->text};
        else if (is_lack_of_descriptors(*failure))
            ret_cold = {WARMFORK_REASON_LIMITS, failure->text};
        return failure;
    }
}

Outcome TemplateHandle::explain(const Request& given, ColdReason& ret_reason) {
    if (choose_backend(given.backend(), backend_) == WARMFORK_BACKEND_COLD) {
        ret_reason = {WARMFORK_REASON_ASKED, "the cold backend was asked for"};
        return {};
    }
    const InterpretedRequest interpreted(given, is_python_, program_);
    const Request& request = interpreted.get();
    if (const Outcome failure = check_size(request)) {
        ret_reason = {WARMFORK_REASON_LIMITS, failure->text};
        return {};
    }
    PythonCommand command;
    Selection selection;
    if ((ret_reason = find_selection(request, is_python_, program_, command, selection))) return {};
    if ((ret_reason = images_.explain(selection))) return {};
    if (const Process process = images_.first())
        ret_reason = find_reason(request, command, *process);
    return {};
}

Outcome TemplateHandle::spawn_in(TemplateProcess& process, Freshness freshness,
                                 const OwnerState& state, const Request& request,
                                 std::uint32_t count, ColdReason& ret_cold,
                                 std::vector<Spawned>& ret_spawned) {
    ChildTies ties{request.lifetime()};
    ties.parent = owner_;
    ties.has_parent_death_signal = process.opened_by_main_thread();
    ChildRecord record;
    if (Outcome failure =
            make_child_record(request, process.state_at_start(), state, ties, record, ret_cold))
        return failure;

    // Where nobody knows the template looks, at a fork.
    if (count == 1 && freshness != Freshness::unknown) {
        Spawned spawned{0, true, {}, {}};
        bool done = false;
        Outcome failure = spawn_by_hand_off(process, record, request.lifetime(), done, spawned);
        if (failure) describe(*failure, request);
        if (failure || done) {
            if (!failure) ++handed_off_, ret_spawned = {spawned};
            return failure;
        }
    }
    if (process.is_slow())
        return Failure{
            Stage::hand_off, ETIMEDOUT, 0,
            "the template's children are not prepared in time: a fork handler of what is "
            "preloaded takes its time"};
    Outcome failure = spawn_on_command(process, record, request, count, ret_spawned);
    if (failure) describe(*failure, request);
    return failure;
}

/// Waits for a child until it has not started for kStartPatience after its birth, or the template
/// has shown no sign of life for as long: it may have much to do before.
Outcome TemplateHandle::await_forked(TemplateProcess& process, std::uint64_t id, std::size_t index,
                                     Born& child) {
    std::uint64_t signs = process.signs_of_life();
    bool is_born = false;
    for (auto since = WaitClock::now();;) {
        Outcome failure = await_start(child, child.mailbox.get(),
                                      std::min(since + kStartPatience, WaitClock::now() + kLook));
        if (!is_late(failure) || was_interrupted()) return failure;
        const std::uint64_t now = process.signs_of_life();
        const bool is_alive = !is_born && now != std::exchange(signs, now);
        is_born = process.born_of(id) > index;
        if (is_alive)
            since = WaitClock::now();
        else if (WaitClock::now() >= since + kStartPatience)
            return failure;
    }
}

/// All or none. A child that has not started in time can start no more when this returns.
Outcome TemplateHandle::spawn_on_command(TemplateProcess& process, const ChildRecord& record,
                                         const Request& request, std::uint32_t count,
                                         std::vector<Spawned>& ret_spawned) {
    const bool serves_stale = is_unchecked_ || on_stale_ == WARMFORK_STALE_SERVE;
    const std::uint64_t mount_changes = process.mount_changes();
    std::uint64_t id;
    std::vector<Born> born;
    stopping_point("owner.before-command");
    if (Outcome failure = process.fork_on_command(
            record.bytes, record.memfd.get(), record.descriptors, count,
            serves_stale ? kSpawnFromStaleImage : 0, request.nonblocking(), id, born))
        return failure;
    stopping_point("owner.command-sent");
    std::vector<Spawned> spawned;
    Outcome failure;
    bool is_unexplained = false;
    for (Born& child : born) {
        // Behind one that fails what the others have said is enough.
        Outcome start_failure = failure ? await_start(child, child.mailbox.get(), WaitClock::now())
                                        : await_forked(process, id, spawned.size(), child);
        if (is_late(start_failure)) start_failure = give_up_start(child, std::move(start_failure));
        if (!start_failure) {
            spawned.push_back({child.pid, true, {}, {}, child.mark});
            continue;
        }
        end_child(child.identity());
        is_unexplained = is_unexplained || child.pid == 0;
        if (!failure) failure = std::move(start_failure);
    }
    // A mailbox was closed without a word, or nothing was heard of it: was its child never forked,
    // or did it die? A template that was killed because it does not say has no better reason.
    const bool is_over = is_late(failure) && !was_interrupted();
    Outcome explanation = process.finish_command(id, count, is_unexplained, identities_of(spawned),
                                                 is_over ? WaitClock::duration() : kStartPatience);
    if (explanation && !(is_late(failure) && process.is_stuck())) failure = std::move(explanation);
    if (spawned.size() == count) {
        process.mounts_checked(mount_changes);
        process.remember_children(identities_of(spawned), request.lifetime());
        forked_ += count;
        ret_spawned = std::move(spawned);
        return {};
    }
    for (const Spawned& child : spawned) end_child(child.identity());
    return failure;
}

/// Sends the record to a parked child. `ret_done` stays false if there is none to be had.
Outcome TemplateHandle::spawn_by_hand_off(TemplateProcess& process, const ChildRecord& record,
                                          Lifetime lifetime, bool& ret_done, Spawned& ret_spawned) {
    Outcome failure;
    int late = 0;
    for (int tries = 0; tries < kHandOffTries; ++tries) {
        stopping_point("owner.before-hand-off");
        std::optional<Born> spare = process.take_spare(lifetime);
        if (!spare) break;
        stopping_point("owner.hand-off-told");
        failure = hand_off(record, *spare, WaitClock::now() + kStartPatience,
                           [&] { end_child(spare->identity()); });
        if (!failure) {
            ret_spawned.pid = spare->pid;
            ret_spawned.mark = spare->mark;
            ret_done = true;
            process.remember_children({spare->identity()}, lifetime);
            break;
        }
        spare->mailbox.reset();
        end_child(spare->identity());
        // It said what failed: that is the answer. Otherwise it died before any user code.
        if (failure->stage != Stage::hand_off || failure->error_number == ECANCELED) break;
        if (is_late(failure)) {
            process.note_late_child();
            if (++late == kMostLateChildren || was_interrupted()) break;
            continue;
        }
        failure.reset();
    }
    // The child is on its way: now the template may use the processor to fork the next one.
    process.wake_to_refill();
    return failure;
}

}  // namespace warmfork
