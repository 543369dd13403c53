#include "owner/images.hpp"

#include <fmt/format.h>
#include <unistd.h>

#include <algorithm>
#include <thread>

namespace warmfork {
namespace {

using std::chrono::milliseconds;
using std::chrono::seconds;

// An image that goes out of date again within this time waits longer for its next start each time.
constexpr seconds kRenewalPeriod{10};
constexpr milliseconds kFirstRenewalDelay{100};
constexpr milliseconds kLongestRenewalDelay{60'000};
// The same where it does not answer: that costs each spawn which finds out a while.
constexpr milliseconds kFirstAbandonedDelay{5000};
// An image that could not be preloaded is tried again after this time.
constexpr seconds kRetryPeriod{5};
// What an image turns out to depend on is known when it is ready: then another may be the right
// one.
constexpr int kChoices = 4;
// A layer whose base could not be had asks again after this time.
constexpr seconds kBaseRetryPeriod{1};

/// Where the package lies is inserted for its import only; the modules follow as arguments. What
/// the interpreter has loaded by itself is told apart from what preloading adds.
constexpr const char* kPythonBoot =
    "import sys; start = frozenset(sys.modules); "
    "sys.path[:sys.path[:1] == ['']] = [sys.argv[1]]; "
    "import warmfork._template; warmfork._template.main(start)";

// So many selections are remembered that no image gave way to.
constexpr std::size_t kMostRefused = 64;

void add_to_hash(std::size_t& hash, std::string_view text) {
    hash = hash * 31 + std::hash<std::string_view>()(text);
}

std::vector<std::string> copy(std::span<char* const> strings) {
    return {strings.begin(), strings.end()};
}

/// Pointers into what is given, or into the owner's own environment.
std::vector<char*> variables_of(std::optional<std::vector<std::string>>& environment) {
    std::vector<char*> variables;
    if (environment)
        for (std::string& variable : *environment) variables.push_back(variable.data());
    else
        for (char** variable = environ; variable && *variable; ++variable)
            variables.push_back(*variable);
    return variables;
}

/// PYTHONPATH of an image's environment.
std::vector<std::string> python_path_in(std::optional<std::vector<std::string>> environment) {
    return python_path_of(variables_of(environment));
}

/// ", it is about to import ..."; empty: it does not say.
std::string progress_of(TemplateProcess& process) {
    const std::string progress = process.progress();
    return progress.empty() ? progress : ", it preloads " + progress;
}

bool is_not_yet(const Outcome& failure) {
    return failure && failure->error_number == ETIMEDOUT;
}

}  // namespace

ImageSet::ImageSet(Definition definition)
    : owner_(::getpid()), owners_path_(python_path_in({})), definition_(std::move(definition)) {
    images_.push_back(std::make_shared<Image>());
    images_.front()->environment = definition_.environment;
    std::vector<char*> command{definition_.program.data()};
    for (std::string& option : definition_.options) command.push_back(option.data());
    const PythonCommand parsed = parse_python_command(command);
    images_.front()->options = parsed.options;
    images_.front()->is_isolated = parsed.is_isolated();
}

ImageSet::~ImageSet() {
    if (owner_ != ::getpid()) return;  // a forked copy
    // All are told before one is waited for.
    for (const ImagePointer& image : images_)
        for (const Process& process : {image->process, image->next})
            if (process) process->shut_down();
}

Selection ImageSet::plain_selection() {
    const std::lock_guard lock(mutex_);
    std::vector<char*> variables = variables_of(definition_.environment);
    // Other threads may be reading what they were given.
    if (variables != plain_environment_) plain_environment_ = std::move(variables);
    return {images_.front()->options, images_.front()->is_isolated, plain_environment_};
}

/// Where the modules are looked for first: as the owner does it, but where the image's PYTHONPATH
/// is another one that comes in place of the owner's. Nothing where an option of a request keeps
/// the interpreter from the user's paths; one of the definition's keeps nobody from the path that
/// it names itself.
std::vector<std::string> ImageSet::search_path_for(const Image& image) const {
    const bool is_defined_so = images_.front()->is_isolated && definition_.names_search_path;
    if (image.is_isolated && !is_defined_so) return {};
    std::vector<std::string> path = python_path_in(image.environment);
    if (path == owners_path_) return definition_.python_path;
    for (const std::string& entry : definition_.python_path)
        if (std::find(owners_path_.begin(), owners_path_.end(), entry) == owners_path_.end())
            path.push_back(entry);
    return path;
}

std::string ImageSet::learning() const {
    if (!definition_.learns) return "";
    std::string text = "learn=" + definition_.name;
    for (const std::string& entry : definition_.allowed)
        if (entry.starts_with("directory:")) text += '\n' + entry;
    return text;
}

LaunchPlan ImageSet::plan_for(const Image& image) const {
    LaunchPlan plan;
    plan.arguments = {definition_.program};
    if (definition_.is_python) {
        // What keeps the interpreter from the user's paths keeps the template from the owner's.
        const std::vector<std::string> path = search_path_for(image);
        for (const auto& part :
             {image.options,
              std::vector<std::string>{"-c", kPythonBoot, definition_.package,
                                       definition_.before_fork, definition_.in_child, learning()},
              std::vector<std::string>{fmt::format("{}", path.size())}, path, definition_.preload})
            plan.arguments.insert(plan.arguments.end(), part.begin(), part.end());
        plan.is_python = true;
        plan.path_at = plan.arguments.size() - definition_.preload.size() - path.size() - 1;
    } else {
        plan.arguments.insert(plan.arguments.end(), definition_.arguments.begin(),
                              definition_.arguments.end());
    }
    plan.environment = image.environment;
    plan.directory = definition_.directory;
    plan.spares_least = definition_.spares_least;
    plan.spares_most = definition_.spares_most;
    plan.allowed = definition_.allowed;
    plan.nested = definition_.nested;
    plan.is_shared = definition_.is_shared;
    return plan;
}

Outcome ImageSet::start_process(Image& image, Process& ret_process) {
    if (definition_.take_foundation) return start_layer(image, ret_process);
    if (Outcome failure = TemplateProcess::start(plan_for(image), ret_process)) return failure;
    ++starts_;
    return {};
}

/// ETIMEDOUT: its base is not ready; `resume` goes on with it.
Outcome ImageSet::start_layer(Image& image, Process& ret_process) {
    if (image.base_failure && Clock::now() < image.base_failed_at + kBaseRetryPeriod)
        return image.base_failure;
    const std::vector<char*> environment = variables_of(image.environment);
    Foundation foundation;
    image.base_reason = {};
    image.base_failure = definition_.take_foundation(
        {image.options, image.is_isolated, environment}, foundation, image.base_reason);
    image.awaits_base = is_not_yet(image.base_failure);
    if (image.awaits_base) return std::exchange(image.base_failure, std::nullopt);
    image.base_failed_at = Clock::now();
    if (image.base_failure) return image.base_failure;
    Outcome failure = TemplateProcess::extend(plan_for(image), *foundation.base,
                                              std::move(foundation.spare), ret_process);
    if (failure && failure->stage == Stage::hand_off) return start_layer(image, ret_process);
    if (!failure) ++starts_;
    return failure;
}

/// The process of the image from now on.
void ImageSet::adopt(Image& image, Process process) {
    discard(image.process);
    image.started_with = process->environment_at_start();
    image.process = std::move(process);
    image.fitting.clear();
    image.is_put_off = false;
    image.has_learned = false;
    image.failure.reset();
    image.no_template.reset();
}

Outcome ImageSet::restart(Image& image) {
    Process process;
    if (Outcome failure = start_process(image, process)) return failure;
    adopt(image, std::move(process));
    return {};
}

/// Tells a template to end. Nobody waits for it: what a spawn waits for is its successor.
void ImageSet::discard(Process& process) {
    if (!process) return;
    process->shut_down();
    ending_.push_back(std::move(process));
    process.reset();
}

/// Lets go of those of the discarded that need not be waited for: of one that was killed the
/// children are left to a keeper only now.
void ImageSet::bury() {
    std::erase_if(ending_, [](const Process& process) { return process->is_over(); });
}

/// Is the first image expected before a cold child would have imported the same? That takes about
/// half as long as a template's start, which also looks at what it has imported, and forks. Where
/// nobody knows how long that is a cold child is the sooner; but only a few of them at once, which
/// would take the processors from each other, and live on without the image. To be asked once for
/// each spawn: it counts those that do not wait.
bool ImageSet::is_worth_waiting(Image& image, const TemplateProcess& process) {
    const auto now = Clock::now();
    const bool is_soon = image.start_took > Clock::duration::zero() &&
                         now > process.started_at() + image.start_took / 2;
    if (is_soon || process.was_twin() || now >= process.ready_by() ||
        image.cold_meanwhile >= definition_.most_cold_at_first)
        return true;
    ++image.cold_meanwhile;
    return false;
}

/// Reaps a template that has ended: it is a zombie until somebody calls.
void ImageSet::let_go_of_lost(Image& image) {
    if (image.process && image.process->is_lost()) {
        discard(image.process);
        image.restarting = {};
    }
    bury();
}

/// Sees to it that the image has a process, unless it is to wait for its time.
Outcome ImageSet::run(Image& image) {
    if (image.next) {
        Outcome failure = image.next->wait_ready(Clock::now());
        if (!failure) {
            adopt(image, std::move(image.next));
            image.next.reset();
            image.restarting = {};
        } else if (failure->error_number != ETIMEDOUT) {
            discard(image.next);
        }
    }
    let_go_of_lost(image);
    if (image.process || Clock::now() < image.not_before) return {};
    return restart(image);
}

Outcome ImageSet::start() {
    const std::lock_guard lock(mutex_);
    Outcome failure = run(*images_.front());
    return is_not_yet(failure) ? Outcome() : failure;
}

Outcome ImageSet::resume() {
    const std::lock_guard lock(mutex_);
    Outcome of_first;
    for (const ImagePointer& image : images_) {
        if (!image->awaits_base) continue;
        // Where it fails, whoever asks for this image next is told.
        Outcome failure = image->process ? start_process(*image, image->next) : restart(*image);
        if (image == images_.front() && !is_not_yet(failure)) of_first = std::move(failure);
    }
    return of_first;
}

void ImageSet::learn(Image& image, TemplateProcess& process) {
    if (image.has_learned) return;
    image.started_with = process.environment_at_start();
    image.read = process.variables();
    known_reads_.names.insert(image.read->names.begin(), image.read->names.end());
    known_reads_.all = known_reads_.all || image.read->all;
    image.has_learned = true;
    image.restarting = {};
    image.start_took = process.start_took();
    image.cold_meanwhile = 0;
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
            if (!may_wait && !is_worth_waiting(*image, *process)) {
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

ImageSet::Image* ImageSet::image_of(const Process& process) {
    for (const ImagePointer& image : images_)
        if (image->process == process) return image.get();
    return nullptr;
}

/// Sets `not_before`: at once, or later each time where this happens again and again.
void ImageSet::put_off_next_start(Image& image, Clock::duration first_delay) {
    const auto now = Clock::now();
    image.delay =
        now - image.renewed_at < kRenewalPeriod + image.delay
            ? std::clamp<Clock::duration>(image.delay * 2, first_delay, kLongestRenewalDelay)
            : Clock::duration::zero();
    image.renewed_at = now;
    image.not_before = now + image.delay;
}

void ImageSet::replace(const Process& process, const ColdReason& reason) {
    const std::lock_guard lock(mutex_);
    Image* image = image_of(process);
    if (!image || Clock::now() < image->not_before) return;
    put_off_next_start(*image, kFirstRenewalDelay);
    discard(image->process);
    image->restarting = reason;
    // Where it cannot be started now the next request tries, and says so.
    if (restart(*image)) image->restarting = {};
}

void ImageSet::abandon(const Process& process, const ColdReason& reason) {
    const std::lock_guard lock(mutex_);
    Image* image = image_of(process);
    if (!image) return;
    put_off_next_start(*image, kFirstAbandonedDelay);
    discard(image->process);
    image->restarting = reason;
    // Where it cannot be started now the next request tries, and says so.
    if (Clock::now() >= image->not_before) static_cast<void>(restart(*image));
}

/// What was started as the template was none. To start it again now would end likewise, and it may
/// be the application itself.
void ImageSet::give_up_program(Image& image, const Failure& failure) {
    discard(image.process);
    image.no_template = failure;
    image.restarting = {WARMFORK_REASON_UNRESPONSIVE, failure.text};
    image.renewed_at = Clock::now();
    image.delay = kLongestRenewalDelay;
    image.not_before = image.renewed_at + image.delay;
}

void ImageSet::renew(const Process& process, const std::string& change, bool serves_on) {
    const std::lock_guard lock(mutex_);
    Image* image = image_of(process);
    if (!image || image->next || image->awaits_base) return;
    if (serves_on && Clock::now() < image->not_before) return;
    // Once for each change, however often a start that was put off is asked for meanwhile.
    if (!std::exchange(image->is_put_off, false)) put_off_next_start(*image, kFirstRenewalDelay);
    image->restarting = {WARMFORK_REASON_STALE, change};
    if (!serves_on) discard(image->process);
    image->is_put_off = serves_on && Clock::now() < image->not_before;
    if (Clock::now() < image->not_before) return;
    // Where it cannot be started now the next request tries, and says so.
    static_cast<void>(serves_on ? start_process(*image, image->next) : restart(*image));
}

void ImageSet::forget(const Process& process) {
    const std::lock_guard lock(mutex_);
    if (Image* image = image_of(process)) discard(image->process);
}

std::vector<ImageSet::Process> ImageSet::processes() {
    const std::lock_guard lock(mutex_);
    bury();
    std::vector<Process> processes = ending_;
    for (const ImagePointer& image : images_)
        for (const Process& process : {image->process, image->next})
            if (process) processes.push_back(process);
    return processes;
}

ImageSet::Process ImageSet::first() {
    const std::lock_guard lock(mutex_);
    let_go_of_lost(*images_.front());
    return images_.front()->process;
}

std::uint32_t ImageSet::parked() {
    const std::lock_guard lock(mutex_);
    std::uint32_t parked = 0;
    for (const ImagePointer& image : images_) let_go_of_lost(*image);
    for (const ImagePointer& image : images_)
        if (image->process) parked += image->process->parked();
    return parked;
}

int ImageSet::set_spares(std::uint32_t least, std::uint32_t most) {
    const std::lock_guard lock(mutex_);
    definition_.spares_least = least;
    definition_.spares_most = most;
    int error = 0;
    for (const ImagePointer& image : images_)
        for (const Process& process : {image->process, image->next})
            if (process && !error) error = process->set_spares(least, most);
    return error;
}

}  // namespace warmfork
