#include "owner/embedded_source.hpp"

#include <algorithm>
#include <array>

#include "channel/stopping_point.hpp"
#include "child/setup.hpp"
#include "owner/child_start.hpp"
#include "owner/in_flight.hpp"
#include "owner/keeping.hpp"
#include "protocol/layout.hpp"

namespace warmfork {
namespace {

// While a child is waited for, its template is looked at once in this time.
constexpr std::chrono::milliseconds kLook{500};

// How long a template may take to look whether it is out of date, where others have the processors.
constexpr std::chrono::seconds kLookPatience{5};

std::vector<ProcessIdentity> identities_of(const std::vector<Spawned>& spawned) {
    std::vector<ProcessIdentity> identities;
    for (const Spawned& child : spawned) identities.push_back(child.identity());
    return identities;
}

/// Does a limit of this process, or what it is, keep it from starting a template? A cold child
/// needs none.
bool is_in_the_way_of_templates(const Failure& failure) {
    constexpr std::array kErrors{EFBIG, EMFILE, ENFILE, ENOTSUP, ETOOMANYREFS};
    return failure.stage == Stage::launch &&
           std::find(kErrors.begin(), kErrors.end(), failure.error_number) != kErrors.end();
}

/// Returns how a child of this process's own template is tied to it.
ChildTies ties_of(Lifetime lifetime, const TemplateProcess& process) {
    ChildTies ties{lifetime};
    ties.parent = ::getpid();
    ties.has_parent_death_signal = process.at_start().by_main_thread;
    return ties;
}

}  // namespace

class EmbeddedSource::Image : public ChosenImage {
  public:
    Image(EmbeddedSource& source, Process process, Lifetime lifetime)
        : ChosenImage({process->pid(), process->image_descriptors(), process->shadowable(),
                       process->at_start().directory},
                      process->at_start().state, ties_of(lifetime, *process),
                      !source.is_unchecked_),
          source_(source),
          process_(std::move(process)) {}
    ~Image() override;

    OwnerChange find_change(const OwnerState& now) override;
    void replace(const OwnerChange& change) override {
        source_.images_.replace(process_, {WARMFORK_REASON_RESTARTING, change.text});
    }
    bool ask_whether_stale() override;
    Outcome check_freshness(bool serves_stale, bool& ret_is_known) override;
    Born* take_parked() override;
    Spawned release_started() override;
    void end_parked() override { end_child(parked_->identity()); }
    void note_late_child() override { process_->note_late_child(); }
    Outcome fork_on_command(const ChildRecord& record, const Request& request, std::uint32_t count,
                            bool serves_stale, std::vector<Spawned>& ret_spawned) override;
    void note_failure(const Failure& failure) override;

  private:
    [[nodiscard]] std::string find_difference(const OwnerState& now, bool& ret_is_lasting);
    [[nodiscard]] Outcome await_forked(std::uint64_t id, std::size_t index, Born& child);

    EmbeddedSource& source_;
    const Process process_;
    std::optional<Born> parked_;
};

EmbeddedSource::EmbeddedSource(ImageSet::Definition definition)
    : owner_(::getpid()),
      is_python_(definition.is_python),
      program_(definition.program),
      images_(std::move(definition)) {}

Outcome EmbeddedSource::start(bool may_be_cold) {
    if (!may_be_cold) return outwait_descriptors_in_flight({}, [this] { return images_.start(); });
    Outcome failure = images_.start();
    if (failure && is_in_the_way_of_templates(*failure)) return {};
    return failure;
}

/// Waits for the image that a plain spawn of this moment would come from.
Outcome EmbeddedSource::ready_image(Deadline deadline, Process& ret_process) {
    const Selection selection = images_.plain_selection();
    ColdReason reason;
    Outcome failure = outwait_descriptors_in_flight(
        deadline, [&] { return images_.choose(selection, true, deadline, ret_process, reason); });
    if (!failure && !ret_process)
        return Failure{Stage::launch, ETIMEDOUT, 0, "the template is not ready: " + reason.text};
    return failure;
}

Outcome EmbeddedSource::wait_ready(Deadline deadline) {
    Process process;
    return ready_image(deadline, process);
}

Outcome EmbeddedSource::wait_parked(std::uint32_t count, Deadline deadline) {
    Process process;
    if (Outcome failure = ready_image(deadline, process)) return failure;
    return process->wait_parked(count, deadline);
}

pid_t EmbeddedSource::pid() {
    const Process process = images_.first();
    return process && !process->has_ended() ? process->pid() : 0;
}

std::string EmbeddedSource::progress() {
    const Process process = images_.first();
    return process ? process->progress() : std::string();
}

Outcome EmbeddedSource::report(std::string& ret_json) {
    Process process;
    if (Outcome failure = ready_image(WaitClock::now() + kWarmPatience, process)) return failure;
    return process->report(ret_json);
}

Outcome EmbeddedSource::find_program(TemplateProgram& ret_program, ColdReason&) {
    ret_program.is_python = is_python_;
    ret_program.path = program_;
    return {};
}

Outcome EmbeddedSource::choose(const Wish& wish, std::unique_ptr<ChosenImage>& ret_image,
                               ColdReason& ret_cold) {
    Process process;
    Outcome failure;
    if (wish.is_question) {
        ret_cold = images_.explain(wish.selection);
        process = images_.first();
    } else {
        const Deadline deadline = wish.may_wait ? Deadline(wish.began + kWarmPatience) : Deadline();
        failure = images_.choose(wish.selection, wish.may_wait, deadline, process, ret_cold);
    }
    if (failure && !ret_cold && is_in_the_way_of_templates(*failure))
        ret_cold = {failure->error_number == ENOTSUP ? WARMFORK_REASON_OWNER_CHANGED
                                                     : WARMFORK_REASON_LIMITS,
                    failure->text};
    if (failure || ret_cold || !process) return failure;
    ret_image = std::make_unique<Image>(*this, std::move(process), wish.lifetime);
    return {};
}

void EmbeddedSource::end(const Spawned& child) {
    end_child(child.identity());
}

/// Lets go of a child that was taken and has not started: it is of no use any more.
EmbeddedSource::Image::~Image() {
    if (!parked_) return;
    parked_->mailbox.reset();
    end_child(parked_->identity());
    process_->wake_to_refill();
}

std::string EmbeddedSource::Image::find_difference(const OwnerState& now, bool& ret_is_lasting) {
    std::string change = find_lasting_obstacle(now);
    ret_is_lasting = !change.empty();
    if (change.empty()) change = find_incompatible_change(state_at_start(), now);
    if (!change.empty() || can_look_at(process_->pid()) || process_->has_ended()) return change;
    if (process_->at_start().could_look)
        return "the owner has been confined since the template was started";
    if (!may_have_been_confined(now)) return {};
    ret_is_lasting = true;
    return "whether the owner is confined (Landlock) cannot be told, as it may not look at its "
           "template";
}

OwnerChange EmbeddedSource::Image::find_change(const OwnerState& now) {
    OwnerChange change;
    change.text = find_difference(now, change.is_lasting);
    // Threads that differ from each other would replace it in turn.
    if (!change.text.empty() && is_of_one_thread(state_at_start(), now)) change.is_lasting = true;
    return change;
}

/// Asks the template where only that can tell. One that does not answer is taken as up to date.
bool EmbeddedSource::Image::ask_whether_stale() {
    const ImageWatch::Freshness known = process_->watch().look();
    if (known != ImageWatch::Freshness::unknown) return known == ImageWatch::Freshness::stale;
    const std::uint64_t look = process_->look();
    if (look == 0) return false;
    constexpr std::chrono::milliseconds kMoment{1};
    const auto deadline = WaitClock::now() + kLookPatience;
    while (WaitClock::now() < deadline && !was_interrupted()) {
        process_->attend();
        if (const std::optional<bool> was_fresh = process_->take_look_answer(look))
            return !*was_fresh;
        static_cast<void>(poll_until({}, WaitClock::now() + kMoment));
    }
    process_->cancel_look(look);
    return false;
}

Outcome EmbeddedSource::Image::check_freshness(bool serves_stale, bool& ret_is_known) {
    if (source_.is_unchecked_) return {};
    const ImageWatch::Freshness freshness = process_->watch().look();
    ret_is_known = freshness != ImageWatch::Freshness::unknown;
    if (freshness != ImageWatch::Freshness::stale) return {};
    if (!serves_stale) return Failure{Stage::stale, ESTALE, 0, process_->change()};
    source_.images_.renew(process_, process_->change(), true);
    return {};
}

Born* EmbeddedSource::Image::take_parked() {
    parked_ = process_->take_spare(ties().lifetime);
    if (parked_) return &*parked_;
    process_->wake_to_refill();
    return nullptr;
}

Spawned EmbeddedSource::Image::release_started() {
    const ProcessIdentity child = parked_->identity();
    process_->remember_children({child}, ties().lifetime);
    parked_.reset();
    // The child is on its way: now the template may use the processor to fork the next one.
    process_->wake_to_refill();
    return {child.pid, true, {}, {}, child.mark};
}

void EmbeddedSource::Image::note_failure(const Failure& failure) {
    ImageSet& images = source_.images_;
    if (failure.stage == Stage::stale)
        images.renew(process_, failure.text, false);
    else if (failure.error_number == EPIPE)
        images.discard(process_);
    // A template that was killed has to be replaced; one whose children are slow may still get some
    // that are prepared ahead of need.
    else if (process_->is_stuck())
        images.abandon(process_, {WARMFORK_REASON_UNRESPONSIVE, failure.text});
}

/// Waits for a child until it has not started for kStartPatience after its birth, or the template
/// has shown no sign of life for as long: it may have much to do before.
Outcome EmbeddedSource::Image::await_forked(std::uint64_t id, std::size_t index, Born& child) {
    std::uint64_t signs = process_->signs_of_life();
    bool is_born = false;
    for (auto since = WaitClock::now();;) {
        Outcome failure = await_start(child, child.mailbox.get(),
                                      std::min(since + kStartPatience, WaitClock::now() + kLook));
        if (!is_late(failure) || was_interrupted()) return failure;
        const std::uint64_t now = process_->signs_of_life();
        const bool is_alive = !is_born && now != std::exchange(signs, now);
        is_born = process_->born_of(id) > index;
        if (is_alive)
            since = WaitClock::now();
        else if (WaitClock::now() >= since + kStartPatience)
            return failure;
    }
}

/// Forks all or none. A child that has not started in time cannot start any more when this returns.
Outcome EmbeddedSource::Image::fork_on_command(const ChildRecord& record, const Request& request,
                                               std::uint32_t count, bool serves_stale,
                                               std::vector<Spawned>& ret_spawned) {
    if (process_->is_slow())
        return Failure{
            Stage::hand_off, ETIMEDOUT, 0,
            "the template's children are not prepared in time: a fork handler of what is "
            "preloaded takes its time"};
    serves_stale = serves_stale || source_.is_unchecked_;
    const std::uint64_t mount_changes = process_->watch().mount_changes();
    std::uint64_t id;
    std::vector<Born> born;
    stopping_point("owner.before-command");
    if (Outcome failure = process_->fork_on_command(
            record.bytes, record.memfd.get(), record.descriptors, count,
            serves_stale ? kSpawnFromStaleImage : 0, request.nonblocking(), id, born))
        return failure;
    stopping_point("owner.command-sent");
    std::vector<Spawned> spawned;
    Outcome failure;
    bool is_unexplained = false;
    for (Born& child : born) {
        // After one that fails, what the others have said so far is enough.
        Outcome start_failure = failure ? await_start(child, child.mailbox.get(), WaitClock::now())
                                        : await_forked(id, spawned.size(), child);
        if (is_late(start_failure)) start_failure = give_up_start(child, std::move(start_failure));
        if (!start_failure) {
            spawned.push_back({child.pid, true, {}, {}, child.mark});
            continue;
        }
        end_child(child.identity());
        is_unexplained = is_unexplained || child.pid == 0;
        if (!failure) failure = std::move(start_failure);
    }
    // Where a mailbox was closed without a word, or nothing was heard of it, its child was never
    // forked, or it died. A template that was killed because it does not say which has no better
    // reason.
    const bool is_over = is_late(failure) && !was_interrupted();
    Outcome explanation =
        process_->finish_command(id, count, is_unexplained, identities_of(spawned),
                                 is_over ? WaitClock::duration() : kStartPatience);
    if (explanation && !(is_late(failure) && process_->is_stuck()))
        failure = std::move(explanation);
    if (spawned.size() == count) {
        process_->watch().mounts_checked(mount_changes);
        process_->remember_children(identities_of(spawned), request.lifetime());
        ret_spawned = std::move(spawned);
        return {};
    }
    for (const Spawned& child : spawned) end_child(child.identity());
    return failure;
}

}  // namespace warmfork
