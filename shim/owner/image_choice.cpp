// Which image a request gets, and what it is told where there is none yet.
#include <fmt/format.h>

#include <algorithm>
#include <string_view>

#include "owner/images.hpp"
#include "owner/waiting.hpp"

namespace warmfork {
namespace {

using std::chrono::seconds;

// An image that could not be preloaded is tried again after this time.
constexpr seconds kRetryPeriod{5};
// What an image turns out to depend on is known when it is ready: then another may be the right
// one.
constexpr int kChoices = 4;
// So many selections are remembered that no image gave way to.
constexpr std::size_t kMostRefused = 64;

void add_to_hash(std::size_t& hash, std::string_view text) {
    hash = hash * 31 + std::hash<std::string_view>()(text);
}

std::vector<std::string> copy(std::span<char* const> strings) {
    return {strings.begin(), strings.end()};
}

/// ", it is about to import ..."; empty: it does not say.
std::string progress_of(TemplateProcess& process) {
    const std::string progress = process.progress();
    return progress.empty() ? progress : ", it preloads " + progress;
}

}  // namespace

/// Is the first image expected before a cold child would have imported the same? That takes about
/// half as long as a template's start, which also looks at what it has imported, and forks. Where
/// nobody knows how long that is a cold child is the sooner; but only a few of them at once, which
/// would take the processors from each other, and live on without the image. To be asked once for
/// each spawn: it counts those that do not wait.
bool ImageSet::is_worth_waiting(Image& image, const TemplateProcess& process,
                                std::uint32_t children) {
    const auto now = Clock::now();
    const bool is_soon = image.start_took > Clock::duration::zero() &&
                         now > process.started_at() + image.start_took / 2;
    const std::uint32_t left = definition_.most_cold_at_first -
                               std::min(image.cold_meanwhile, definition_.most_cold_at_first);
    if (is_soon || process.was_twin() || now >= process.ready_by() || children > left) return true;
    image.cold_meanwhile += children;
    return false;
}

bool ImageSet::is_starting(const Image& image) {
    return image.awaits_base || (image.process && !image.has_learned);
}

bool ImageSet::fits(Image& image, const Selection& selection) {
    if (image.options != selection.options) return false;
    if (is_unchecked_) return true;
    if (!image.fitting.empty() && is_same_environment(image.fitting, selection.environment))
        return true;
    // What it reads is not known yet: the first is waited for, and asked again; a variant was made
    // by what was known of others.
    if (!image.read && &image == images_.front().get()) return true;
    if (!differing_variable(image.started_with, selection.environment,
                            image.read ? *image.read : known_reads_, definition_.is_python)
             .empty())
        return false;
    if (image.has_learned) image.fitting = copy(selection.environment);
    return true;
}

ImageSet::ImagePointer ImageSet::find(const Selection& selection) {
    for (const ImagePointer& image : images_)
        if (fits(*image, selection)) return image;
    return nullptr;
}

/// Null: there is none to be had for it now. A selection that comes for the first time does not
/// drive out another's image: perhaps it never comes again (a directory of its own for each child).
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
        discard((*oldest)->process);
        discard((*oldest)->next);
        images_.erase(oldest);
    }
    auto variant = std::make_shared<Image>();
    variant->options = selection.options;
    variant->is_isolated = selection.is_isolated;
    // Whoever it serves later finds it in the image's memory: so nothing of the request but what
    // counts. Where it turns out to read more than any image before it, it does not fit, and the
    // next one that is made has that from the request as well.
    variant->environment =
        image_environment(variables_of(definition_.environment), selection.environment,
                          known_reads_, definition_.is_python);
    variant->started_with = *variant->environment;
    images_.push_back(variant);
    return variant;
}

/// In what a request differs from the first image.
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

/// Why an image that is not ready does not serve yet.
ColdReason ImageSet::reason_to_wait(const Image& image, const Selection& selection) {
    if (image.restarting) {
        ColdReason reason = image.restarting;
        if (image.failure)
            reason.text += "; the image could not be preloaded again: " + image.failure->text;
        else
            reason.text +=
                image.process || image.awaits_base
                    ? fmt::format("; the image is being preloaded{}", image.read ? " again" : "")
                    : "; too often to preload it again now";
        return reason;
    }
    if (&image == images_.front().get() && image.process && !image.failure)
        return {WARMFORK_REASON_UNRESPONSIVE,
                fmt::format("the template is not ready after {} seconds{}",
                            TemplateProcess::kReadyPatience.count(), progress_of(*image.process))};
    ColdReason reason = difference(selection);
    reason.text += image.failure
                       ? "; a variant for it could not be preloaded: " + image.failure->text
                       : std::string("; a variant for it is being preloaded");
    return reason;
}

/// Why a request is served cold where a layer's base could not be had. NONE: it is an error.
ColdReason ImageSet::reason_without_base(Image& image, const Selection& selection) {
    if (image.base_reason) return image.base_reason;
    if (&image == images_.front().get() && !image.restarting) return {};
    if (image.base_failure) image.failure = image.base_failure;
    return reason_to_wait(image, selection);
}

Outcome ImageSet::choose(const Selection& selection, bool may_wait, Deadline deadline,
                         Process& ret_process, ColdReason& ret_cold) {
    for (int choice = 0; choice < kChoices; ++choice) {
        std::unique_lock lock(mutex_);
        ImagePointer image = find(selection);
        const bool is_new = !image;
        if (!image) image = add_variant(selection, may_wait);
        if (!image) {
            ret_cold = difference(selection);
            return {};
        }
        image->last_use = ++uses_;
        const bool is_first = image == images_.front();
        if (image->failure && !may_wait && Clock::now() < image->failed_at + kRetryPeriod) {
            ret_cold = reason_to_wait(*image, selection);
            return {};
        }
        Outcome run_failure = run(*image);
        const Process process = image->process;
        const bool waits = may_wait || (is_first && !image->restarting);
        if (run_failure && (!is_not_yet(run_failure) || waits)) {
            if (is_not_yet(run_failure)) return run_failure;
            if (definition_.take_foundation) ret_cold = reason_without_base(*image, selection);
            if (!is_first) std::erase(images_, image);
            return run_failure;
        }
        if (!process || (is_new && !waits)) {
            const auto time = image->not_before;
            if (!process && image->no_template) {
                ret_cold = reason_to_wait(*image, selection);
                return image->no_template;
            }
            if (!waits || (deadline && *deadline < time)) {
                ret_cold = reason_to_wait(*image, selection);
                return {};
            }
            lock.unlock();
            static_cast<void>(poll_until({}, time));
            lock.lock();
            if (was_interrupted()) return Failure{Stage::launch, ETIMEDOUT, 0, "broken off"};
            continue;
        }
        lock.unlock();
        const auto ready_by = process->ready_by();
        Outcome failure = process->wait_ready(Clock::now());
        if (is_not_yet(failure) && waits) {
            lock.lock();
            if (!may_wait && !is_worth_waiting(*image, *process, selection.children)) {
                ret_cold = {WARMFORK_REASON_RESTARTING,
                            "the image is being preloaded, and a cold child need not wait for it"};
                return {};
            }
            lock.unlock();
            failure = process->wait_ready(
                may_wait ? deadline : std::min(deadline.value_or(ready_by), ready_by));
        }
        lock.lock();
        if (!failure) {
            if (image->process != process) continue;  // renewed meanwhile
            learn(*image, *process);
            if (!fits(*image, selection)) continue;  // it has read what differs
            ret_process = process;
            return {};
        }
        if (failure->stage == Stage::hand_off) {  // the child had ended: another one will do
            if (image->process == process) discard(image->process);
            continue;
        }
        const bool is_late = failure->error_number == ETIMEDOUT;
        if (is_late && waits && (may_wait || Clock::now() < ready_by)) return failure;
        if (failure->error_number == ENOEXEC) {
            if (image->process == process) give_up_program(*image, *failure);
            ret_cold = reason_to_wait(*image, selection);
            return failure;
        }
        // Who asks next is to be told as well.
        if (!is_late) image->cold_meanwhile = UINT32_MAX;
        if (!is_late && is_first && !image->restarting) {
            lock.unlock();
            if (failure->stage == Stage::gate)
                ret_cold = {WARMFORK_REASON_GATE, failure->text};
            else
                forget(process);
            return failure;
        }
        if (!is_late) {
            image->failure = failure;
            image->failed_at = Clock::now();
            if (image->process == process) discard(image->process);
        }
        ret_cold = reason_to_wait(*image, selection);
        return is_late ? Outcome() : failure;
    }
    ret_cold = {WARMFORK_REASON_ENVIRONMENT, "what the images read differs from start to start"};
    return {};
}

ColdReason ImageSet::explain(const Selection& selection) {
    const std::lock_guard lock(mutex_);
    const ImagePointer image = find(selection);
    if (!image) return difference(selection);
    const bool is_ready = image->process && !image->process->wait_ready(Clock::now());
    return is_ready || image == images_.front() ? ColdReason() : reason_to_wait(*image, selection);
}

}  // namespace warmfork
