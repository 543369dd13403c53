// Which image a request gets, and what it is told where there is none yet.
#include <fmt/format.h>

#include <algorithm>
#include <string_view>

#include "owner/images.hpp"
#include "owner/waiting.hpp"

namespace warmfork {
namespace {

// What an image turns out to depend on is known when it is ready: then another may be the right
// one.
constexpr int kChoices = 4;
// How many selections are remembered that no image gave way to.
constexpr std::size_t kMostRefused = 64;

void add_to_hash(std::size_t& hash, std::string_view text) {
    hash = hash * 31 + std::hash<std::string_view>()(text);
}

std::vector<std::string> copy(std::span<char* const> strings) {
    return {strings.begin(), strings.end()};
}

/// Will the process never be ready?
bool has_failed(const Outcome& unready) {
    return unready && (unready->stage == Stage::hand_off || !is_not_yet(unready));
}

std::chrono::seconds age_of(const TemplateProcess& process) {
    return std::chrono::duration_cast<std::chrono::seconds>(WaitClock::now() -
                                                            process.at_start().started_at);
}

/// ", it is about to import ..."; empty: it does not say.
std::string progress_of(TemplateProcess& process) {
    const std::string progress = process.progress();
    return progress.empty() ? progress : ", it preloads " + progress;
}

}  // namespace

/// Waits where the first image is expected before a cold child would have imported the same. That
/// takes about half as long as a template's start, which also looks at what it has imported, and
/// forks. Where nobody knows how long that is a cold child is there sooner; but only a few of them
/// at once, as they would take the processors from each other, and live on without the image. It
/// must be called once for each spawn, as it counts those that do not wait.
bool ImageSet::decide_to_wait(Image& image, const TemplateProcess& process,
                              std::uint32_t children) {
    const auto now = Clock::now();
    const bool is_soon = image.start_took > Clock::duration::zero() &&
                         now > process.at_start().started_at + image.start_took / 2;
    const std::uint32_t left = definition_.most_cold_at_first -
                               std::min(image.cold_meanwhile, definition_.most_cold_at_first);
    if (is_soon || process.at_start().was_twin || now >= process.ready_by() || children > left)
        return true;
    image.cold_meanwhile += children;
    return false;
}

bool ImageSet::is_starting(const Image& image) {
    return image.phase == ImagePhase::awaiting_base || image.phase == ImagePhase::preloading ||
           image.successor == Successor::awaiting_base;
}

bool ImageSet::fits(Image& image, const Selection& selection) {
    if (image.options != selection.options) return false;
    if (is_unchecked_) return true;
    if (!image.fitting.empty() && is_same_environment(image.fitting, selection.environment))
        return true;
    // It is not known yet what it reads. So the first is waited for, and asked again; a variant was
    // made by what was known of others.
    if (!image.read && &image == images_.front().get()) return true;
    if (!differing_variable(image.started_with, selection.environment,
                            image.read ? *image.read : known_reads_, definition_.is_python)
             .empty())
        return false;
    if (image.phase == ImagePhase::ready) image.fitting = copy(selection.environment);
    return true;
}

ImageSet::ImagePointer ImageSet::find(const Selection& selection) {
    for (const ImagePointer& image : images_)
        if (fits(*image, selection)) return image;
    return nullptr;
}

/// Adds a variant. Returns null where none can be had for it now. A selection that comes for the
/// first time does not drive out another's image: perhaps it never comes again (a directory of its
/// own for each child).
ImageSet::ImagePointer ImageSet::add_variant(const Selection& selection, bool insists) {
    if (definition_.variants_most == 0) return nullptr;
    if (images_.size() > definition_.variants_most) {
        std::size_t hash = 0;
        for (const std::string& option : selection.options) add_to_hash(hash, option);
        for (const char* variable : selection.environment) add_to_hash(hash, variable);
        const auto before = std::find(refused_.begin(), refused_.end(), hash);
        const auto oldest = std::min_element(
            images_.begin() + 1, images_.end(), [](const auto& one, const auto& other) {
                return std::pair(is_starting(*one), one->last_use) <
                       std::pair(is_starting(*other), other->last_use);
            });
        if (!insists && (before == refused_.end() || is_starting(**oldest))) {
            if (before == refused_.end()) refused_.push_back(hash);
            if (refused_.size() > kMostRefused) refused_.pop_front();
            return nullptr;
        }
        drop_process(**oldest);
        drop_successor(**oldest);
        images_.erase(oldest);
    }
    auto variant = std::make_shared<Image>();
    variant->options = selection.options;
    variant->is_isolated = selection.is_isolated;
    // Whoever it serves later finds it in the image's memory, so it has nothing of the request but
    // what counts. Where it turns out to read more than any image before it, it does not fit, and
    // the next one that is made has that from the request as well.
    variant->environment =
        image_environment(variables_of(definition_.environment), selection.environment,
                          known_reads_, definition_.is_python);
    variant->started_with = *variant->environment;
    images_.push_back(variant);
    return variant;
}

/// Finds in what a request differs from the first image.
ColdReason ImageSet::difference(const Selection& selection) {
    const Image& first = *images_.front();
    if (selection.options != first.options)
        return {WARMFORK_REASON_COMMAND_LINE,
                selection.options.empty()
                    ? "the template's interpreter has options, and this one has none"
                    : fmt::format("{} is only read at the interpreter's start",
                                  fmt::join(selection.options, " "))};
    const std::string name =
        differing_variable(first.started_with, selection.environment,
                           first.read.value_or(ReadVariables()), definition_.is_python);
    return {WARMFORK_REASON_ENVIRONMENT,
            (name.empty() ? "the environment" : name) + " was read while preloading and differs"};
}

/// Finds why an image that is not ready does not serve yet.
ColdReason ImageSet::reason_to_wait(const Image& image, const Selection& selection) {
    const bool is_failed = image.phase == ImagePhase::failed;
    const bool is_coming = image.process || image.phase == ImagePhase::awaiting_base ||
                           image.successor == Successor::awaiting_base;
    if (image.restarting) {
        ColdReason reason = image.restarting;
        if (is_failed && image.failure->text != reason.text)
            reason.text += "; the image could not be preloaded again: " + image.failure->text;
        else if (!is_failed)
            reason.text += is_coming ? fmt::format("; the image is being preloaded{}",
                                                   image.read ? " again" : "")
                                     : "; too often to preload it again now";
        return reason;
    }
    if (&image == images_.front().get() && !image.process && is_coming && !is_failed)
        return {WARMFORK_REASON_UNRESPONSIVE, "the template that this one extends is not ready"};
    if (&image == images_.front().get() && image.process && !is_failed)
        return {WARMFORK_REASON_UNRESPONSIVE,
                fmt::format("the template is not ready after {} seconds{}",
                            age_of(*image.process).count(), progress_of(*image.process))};
    ColdReason reason = difference(selection);
    reason.text += is_failed ? "; a variant for it could not be preloaded: " + image.failure->text
                             : std::string("; a variant for it is being preloaded");
    return reason;
}

/// Finds why a request is served cold where a layer's base could not be had. Reason NONE means that
/// it is an error.
ColdReason ImageSet::reason_without_base(Image& image, const Selection& selection) {
    if (image.base_reason) return image.base_reason;
    if (&image == images_.front().get() && !image.restarting) return {};
    if (image.base_failure) {
        image.failure = image.base_failure;
        image.phase = ImagePhase::failed;
    }
    return reason_to_wait(image, selection);
}

Outcome ImageSet::choose(const Selection& selection, bool may_wait, Deadline deadline,
                         Process& ret_process, ColdReason& ret_cold) {
    Choice choice{selection, may_wait, deadline, std::unique_lock(mutex_, std::defer_lock)};
    for (int choices = 0; choices < kChoices; ++choices) {
        choice.lock.lock();
        choice.image = find(selection);
        if (!choice.image) choice.image = add_variant(selection, may_wait);
        if (!choice.image) {
            ret_cold = difference(selection);
            return {};
        }
        choice.image->last_use = ++uses_;
        choice.unready.reset();
        choice.is_to_be_repeated = false;
        Outcome failure = try_image(choice, ret_process, ret_cold);
        if (!choice.is_to_be_repeated) return failure;
        choice.lock.unlock();
    }
    ret_cold = {WARMFORK_REASON_ENVIRONMENT, "what the images read differs from start to start"};
    return {};
}

bool ImageSet::is_first_start(const Choice& choice) const {
    return choice.image == images_.front() && !choice.image->restarting;
}

/// Does what the phase of the image asks for: see next_step.
Outcome ImageSet::try_image(Choice& choice, Process& ret_process, ColdReason& ret_cold) {
    Image& image = *choice.image;
    look_at(image);
    const Patience patience = choice.may_wait          ? Patience::insists
                              : is_first_start(choice) ? Patience::first_start
                                                       : Patience::none;
    ImagePhase phase = phase_at(Clock::now(), image.phase, image.times, choice.may_wait);
    if (next_step(phase, patience) == ImageStep::start) {
        if (Outcome failure = start_for(choice, ret_cold)) return failure;
        phase = image.phase;
    }
    const Process process = image.process;
    if (process) phase = look_whether_ready(choice, *process, Clock::now());
    if (process && has_failed(choice.unready)) return settle_failure(choice, process, ret_cold);
    ImageStep step = next_step(phase, patience);
    if (step == ImageStep::weigh && !decide_to_wait(image, *process, choice.selection.children)) {
        ret_cold = {WARMFORK_REASON_RESTARTING,
                    "the image is being preloaded, and a cold child need not wait for it"};
        return {};
    }
    if (step == ImageStep::weigh || step == ImageStep::wait) {
        const auto ready_by = process->ready_by();
        const Deadline until = choice.may_wait
                                   ? choice.deadline
                                   : std::min(choice.deadline.value_or(ready_by), ready_by);
        phase = look_whether_ready(choice, *process, until);
        if (has_failed(choice.unready)) return settle_failure(choice, process, ret_cold);
        step = next_step(phase, patience);
    }
    switch (step) {
        case ImageStep::serve:
            return take_ready(choice, process, ret_process);
        case ImageStep::wait_for_time:
            return wait_for_time(choice, ret_cold);
        case ImageStep::go_cold:
            ret_cold = reason_to_wait(image, choice.selection);
            return {};
        case ImageStep::refuse:
            ret_cold = reason_to_wait(image, choice.selection);
            return image.failure;
        default:  // it was waited for in vain, or its base is still to come
            ret_cold = reason_to_wait(image, choice.selection);
            return choice.unready;
    }
}

/// Starts the image's process, or asks for its base, which `choice.unready` says then.
Outcome ImageSet::start_for(Choice& choice, ColdReason& ret_cold) {
    Outcome failure = restart(*choice.image);
    if (is_not_yet(failure)) {
        choice.unready = std::move(failure);
        return {};
    }
    if (!failure) return {};
    if (definition_.take_foundation)
        ret_cold = reason_without_base(*choice.image, choice.selection);
    if (choice.image != images_.front()) std::erase(images_, choice.image);
    return failure;
}

/// Waits with no lock held. Where it has failed `choice.unready` says so, and the phase does not.
ImagePhase ImageSet::look_whether_ready(Choice& choice, TemplateProcess& process,
                                        Deadline deadline) {
    choice.lock.unlock();
    choice.unready = process.wait_ready(deadline);
    choice.lock.lock();
    if (!choice.unready) return ImagePhase::ready;
    return Clock::now() < process.ready_by() ? ImagePhase::preloading : ImagePhase::late;
}

/// Takes an image that is ready. What it depends on is known now, so another may be the right one.
Outcome ImageSet::take_ready(Choice& choice, const Process& process, Process& ret_process) {
    const bool is_renewed_meanwhile = choice.image->process != process;
    if (!is_renewed_meanwhile) learn(*choice.image, *process);
    choice.is_to_be_repeated = is_renewed_meanwhile || !fits(*choice.image, choice.selection);
    if (!choice.is_to_be_repeated) ret_process = process;
    return {};
}

Outcome ImageSet::wait_for_time(Choice& choice, ColdReason& ret_cold) {
    const auto time = choice.image->times.not_before;
    if (choice.deadline && *choice.deadline < time) {
        ret_cold = reason_to_wait(*choice.image, choice.selection);
        return {};
    }
    choice.lock.unlock();
    static_cast<void>(poll_until({}, time));
    choice.lock.lock();
    if (was_interrupted()) return Failure{Stage::launch, ETIMEDOUT, 0, "broken off"};
    choice.is_to_be_repeated = true;
    return {};
}

/// Settles that the process will never be ready. Its image has failed, unless another process will
/// do.
Outcome ImageSet::settle_failure(Choice& choice, const Process& process, ColdReason& ret_cold) {
    Image& image = *choice.image;
    const Failure& failure = *choice.unready;
    const bool is_current = image.process == process;
    if (failure.stage == Stage::hand_off) {  // the child had ended: another one will do
        if (is_current) drop_process(image);
        choice.is_to_be_repeated = true;
        return {};
    }
    if (failure.error_number == ENOEXEC) {
        if (is_current) give_up_program(image, failure);
        ret_cold = reason_to_wait(image, choice.selection);
        return failure;
    }
    // Whoever asks next is to be told as well.
    image.cold_meanwhile = UINT32_MAX;
    // What killed it is no fault of the modules', or one that a cold child need not have.
    if (is_first_start(choice) && process->was_killed())
        image.restarting = {WARMFORK_REASON_RESTARTING, failure.text};
    if (is_first_start(choice)) {
        if (failure.stage == Stage::gate)
            ret_cold = {
                failure.error_number == ENOMEM ? WARMFORK_REASON_LIMITS : WARMFORK_REASON_GATE,
                failure.text};
        else if (is_current)
            drop_process(image);
        return failure;
    }
    if (is_current) {
        drop_process(image);
        image.phase = ImagePhase::failed;
        image.failure = failure;
        image.times.failed_at = Clock::now();
    }
    ret_cold = reason_to_wait(image, choice.selection);
    return failure;
}

ColdReason ImageSet::explain(const Selection& selection) {
    const std::lock_guard lock(mutex_);
    const ImagePointer image = find(selection);
    if (!image) return difference(selection);
    const bool is_ready = image->process && !image->process->wait_ready(Clock::now());
    return is_ready || image == images_.front() ? ColdReason() : reason_to_wait(*image, selection);
}

}  // namespace warmfork
