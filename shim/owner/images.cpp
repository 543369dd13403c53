#include "owner/images.hpp"

#include <fmt/format.h>
#include <unistd.h>

#include <algorithm>
#include <thread>

#include "protocol/python_template.hpp"

namespace warmfork {
namespace {

using std::chrono::milliseconds;
using std::chrono::seconds;

// An image that goes out of date again within this time waits longer for its next start each time.
constexpr seconds kRenewalPeriod{10};
constexpr milliseconds kFirstRenewalDelay{100};
constexpr milliseconds kLongestRenewalDelay{60'000};
// One that does not answer waits as well: each spawn which finds that out loses some time.
constexpr milliseconds kFirstAbandonedDelay{5000};
// A layer whose base could not be had asks again after this time.
constexpr seconds kBaseRetryPeriod{1};

/// Returns PYTHONPATH of an image's environment.
std::vector<std::string> python_path_in(std::optional<std::vector<std::string>> environment) {
    return python_path_of(variables_of(environment));
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

/// Returns where modules are looked for first: as the owner does, but with the image's PYTHONPATH
/// in place of the owner's where they differ. Returns nothing where an option of a request keeps
/// the interpreter from the user's paths; an option of the definition does not exclude the path
/// that the definition names itself.
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

std::vector<std::string> ImageSet::allowed_directories() const {
    std::vector<std::string> entries;
    for (const std::string& entry : definition_.allowed)
        if (entry.starts_with("directory:")) entries.push_back(entry);
    return entries;
}

LaunchPlan ImageSet::plan_for(const Image& image) const {
    LaunchPlan plan;
    plan.arguments = {definition_.program};
    if (definition_.is_python) {
        plan.arguments.insert(plan.arguments.end(), image.options.begin(), image.options.end());
        const PythonTemplateArguments arguments{
            .package = definition_.package,
            .before_fork = definition_.before_fork,
            .in_child = definition_.in_child,
            .learns = definition_.learns,
            .program = definition_.name,
            .allowed = allowed_directories(),
            // What keeps the interpreter from the user's paths keeps the template from the owner's.
            .search_path = search_path_for(image),
            .modules = definition_.preload};
        plan.path_at = arguments.append_to(plan.arguments);
        plan.is_python = true;
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
    LaunchedTemplate launched;
    if (Outcome failure = launch_template(plan_for(image), launched)) return failure;
    ret_process = std::make_shared<TemplateProcess>(std::move(launched));
    ++starts_;
    return {};
}

/// Starts a layer. Fails with ETIMEDOUT where its base is not ready, which the caller notes;
/// `resume` goes on with it.
Outcome ImageSet::start_layer(Image& image, Process& ret_process) {
    if (image.base_failure && Clock::now() < image.base_failed_at + kBaseRetryPeriod)
        return image.base_failure;
    const std::vector<char*> environment = variables_of(image.environment);
    Foundation foundation;
    image.base_reason = {};
    image.base_failure = definition_.take_foundation(
        {image.options, image.is_isolated, environment}, foundation, image.base_reason);
    if (is_not_yet(image.base_failure)) return std::exchange(image.base_failure, std::nullopt);
    image.base_failed_at = Clock::now();
    if (image.base_failure) return image.base_failure;
    LaunchedTemplate launched;
    Outcome failure =
        launch_layer(plan_for(image), foundation.base->at_start(),
                     foundation.base->image_descriptors(), std::move(foundation.spare), launched);
    if (failure && failure->stage == Stage::hand_off) return start_layer(image, ret_process);
    if (failure) return failure;
    ret_process = std::make_shared<TemplateProcess>(std::move(launched));
    ++starts_;
    return {};
}

/// Makes it the process of the image from now on.
void ImageSet::adopt(Image& image, Process process) {
    discard(image.process);
    image.started_with = process->at_start().environment;
    image.process = std::move(process);
    image.phase = ImagePhase::preloading;
    image.failure.reset();
    image.fitting.clear();
    if (!image.next) image.successor = Successor::none;
}

Outcome ImageSet::restart(Image& image) {
    Process process;
    Outcome failure = start_process(image, process);
    if (!failure)
        adopt(image, std::move(process));
    else if (is_not_yet(failure))
        image.phase = ImagePhase::awaiting_base;
    else if (image.phase == ImagePhase::awaiting_base)
        image.phase = ImagePhase::absent;
    return failure;
}

/// Begins the image anew behind its process, which serves until that is ready.
Outcome ImageSet::start_successor(Image& image) {
    Outcome failure = start_process(image, image.next);
    image.successor = !failure              ? Successor::preloading
                      : is_not_yet(failure) ? Successor::awaiting_base
                                            : Successor::none;
    return failure;
}

/// Tells a template to end. Nobody waits for it: what a spawn waits for is its successor.
void ImageSet::discard(Process& process) {
    if (!process) return;
    process->shut_down();
    ending_.push_back(std::move(process));
    process.reset();
}

void ImageSet::drop_process(Image& image) {
    if (!image.process) return;
    discard(image.process);
    // A layer goes on waiting for its base, and has nothing to serve meanwhile.
    const bool awaits_base = image.successor == Successor::awaiting_base;
    image.phase = awaits_base ? ImagePhase::awaiting_base : ImagePhase::absent;
    if (awaits_base) image.successor = Successor::none;
}

void ImageSet::drop_successor(Image& image) {
    discard(image.next);
    image.successor = Successor::none;
}

/// Lets go of those discarded processes that need not be waited for. Of one that was killed the
/// children are left to a keeper only now.
void ImageSet::release_ended() {
    std::erase_if(ending_, [](const Process& process) { return process->is_over(); });
}

/// Reaps a template that has ended: it is a zombie until somebody calls.
void ImageSet::let_go_of_lost(Image& image) {
    if (image.process && image.process->is_lost()) {
        drop_process(image);
        image.restarting = {};
    }
    release_ended();
}

/// Notes what has become of its processes since.
void ImageSet::look_at(Image& image) {
    if (image.next) {
        const Outcome unready = image.next->wait_ready(Clock::now());
        if (!unready) {
            image.successor = Successor::none;
            adopt(image, std::exchange(image.next, nullptr));
            image.restarting = {};
        } else if (!is_not_yet(unready)) {
            drop_successor(image);
        }
    }
    let_go_of_lost(image);
}

Outcome ImageSet::start() {
    const std::lock_guard lock(mutex_);
    Image& image = *images_.front();
    look_at(image);
    if (phase_at(Clock::now(), image.phase, image.times, true) != ImagePhase::absent) return {};
    Outcome failure = restart(image);
    return is_not_yet(failure) ? Outcome() : failure;
}

Outcome ImageSet::resume() {
    const std::lock_guard lock(mutex_);
    Outcome of_first;
    for (const ImagePointer& image : images_) {
        const bool is_absent = image->phase == ImagePhase::awaiting_base;
        if (!is_absent && image->successor != Successor::awaiting_base) continue;
        // Where it fails, whoever asks for this image next is told.
        Outcome failure = is_absent ? restart(*image) : start_successor(*image);
        if (image == images_.front() && !is_not_yet(failure)) of_first = std::move(failure);
    }
    return of_first;
}

void ImageSet::learn(Image& image, TemplateProcess& process) {
    if (image.phase == ImagePhase::ready) return;
    image.started_with = process.at_start().environment;
    image.read = process.variables();
    known_reads_.names.insert(image.read->names.begin(), image.read->names.end());
    known_reads_.all = known_reads_.all || image.read->all;
    image.phase = ImagePhase::ready;
    image.restarting = {};
    image.start_took = process.start_took();
    image.cold_meanwhile = 0;
}

ImageSet::Image* ImageSet::image_of(const Process& process) {
    for (const ImagePointer& image : images_)
        if (image->process == process) return image.get();
    return nullptr;
}

/// Sets `not_before` to now, or to a later time each time where this happens again and again.
void ImageSet::put_off_next_start(Image& image, Clock::duration first_delay) {
    const auto now = Clock::now();
    image.delay =
        now - image.renewed_at < kRenewalPeriod + image.delay
            ? std::clamp<Clock::duration>(image.delay * 2, first_delay, kLongestRenewalDelay)
            : Clock::duration::zero();
    image.renewed_at = now;
    image.times.not_before = now + image.delay;
}

void ImageSet::replace(const Process& process, const ColdReason& reason) {
    const std::lock_guard lock(mutex_);
    Image* image = image_of(process);
    if (!image || Clock::now() < image->times.not_before) return;
    put_off_next_start(*image, kFirstRenewalDelay);
    drop_process(*image);
    image->restarting = reason;
    // Where it cannot be started now the next request tries, and says so.
    if (restart(*image)) image->restarting = {};
}

void ImageSet::abandon(const Process& process, const ColdReason& reason) {
    const std::lock_guard lock(mutex_);
    Image* image = image_of(process);
    if (!image) return;
    put_off_next_start(*image, kFirstAbandonedDelay);
    drop_process(*image);
    image->restarting = reason;
    // Where it cannot be started now the next request tries, and says so.
    if (Clock::now() >= image->times.not_before) static_cast<void>(restart(*image));
}

/// Gives up a program that was started as the template and is none. To start it again now would end
/// likewise, and it may be the application itself.
void ImageSet::give_up_program(Image& image, const Failure& failure) {
    drop_process(image);
    image.phase = ImagePhase::no_template;
    image.failure = failure;
    image.restarting = {WARMFORK_REASON_UNRESPONSIVE, failure.text};
    image.renewed_at = Clock::now();
    image.delay = kLongestRenewalDelay;
    image.times.not_before = image.renewed_at + image.delay;
}

void ImageSet::renew(const Process& process, const std::string& change, bool serves_on) {
    const std::lock_guard lock(mutex_);
    Image* image = image_of(process);
    if (!image || image->next || image->successor == Successor::awaiting_base) return;
    if (serves_on && Clock::now() < image->times.not_before) return;
    // It counts once for each change, however often a start that was put off is asked for
    // meanwhile.
    const bool was_put_off = image->successor == Successor::put_off;
    image->successor = Successor::none;
    if (!was_put_off) put_off_next_start(*image, kFirstRenewalDelay);
    image->restarting = {WARMFORK_REASON_STALE, change};
    if (!serves_on) drop_process(*image);
    if (Clock::now() < image->times.not_before) {
        if (serves_on) image->successor = Successor::put_off;
        return;
    }
    // Where it cannot be started now the next request tries, and says so.
    static_cast<void>(serves_on ? start_successor(*image) : restart(*image));
}

void ImageSet::discard(const Process& process) {
    const std::lock_guard lock(mutex_);
    if (Image* image = image_of(process)) drop_process(*image);
}

std::vector<ImageSet::Process> ImageSet::processes() {
    const std::lock_guard lock(mutex_);
    for (const ImagePointer& image : images_) look_at(*image);
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
