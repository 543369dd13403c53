#include "template/forker.hpp"

#include <fmt/format.h>
#include <sys/resource.h>

#include <chrono>
#include <cstring>
#include <optional>

#include "channel/stopping_point.hpp"
#include "child/setup.hpp"
#include "template/output.hpp"
#include "template/twin.hpp"

namespace warmfork {
namespace {

using Clock = std::chrono::steady_clock;

constexpr std::size_t kMostImageDescriptors = 256;

/// What a fork handler starts, a thread or a process, inherits the signal mask: that of a process
/// which has just begun, rather than one without any signal. The template's own handlers of signals
/// do not run here: where they cannot be taken back all stay blocked, and the set-up, which does
/// the same, says so. The mask could be set by the template, of which this is a copy.
void take_signals_by_default() {
    if (reset_handlers()) static_cast<void>(set_signal_mask(0));
}

/// Each child costs the template a pidfd; children get the owner's limit back. Returns 0 or errno.
int raise_descriptor_limit(InheritedState& inherited) {
    rlimit limit{};
    if (::getrlimit(RLIMIT_NOFILE, &limit) < 0) return errno;
    inherited.soft_descriptor_limit = limit.rlim_cur;
    inherited.hard_descriptor_limit = limit.rlim_max;
    limit.rlim_cur = limit.rlim_max;
    return ::setrlimit(RLIMIT_NOFILE, &limit) == 0 ? 0 : errno;
}

std::string obstacle_of_handlers(int error) {
    return fmt::format(
        "not safe to fork: it is not known which fork handlers are still there (mincore): {}",
        std::strerror(error));
}

}  // namespace

Forker::Forker(const PreloadInterface& preload, Host& host, AllowList allowed, int owner_pidfd,
               bool leaves_twins, const ImageFacts& facts)
    : preload_(preload),
      host_(host),
      leaves_twins_(leaves_twins),
      facts_(facts),
      check_(std::move(allowed)) {
    inherited_.host = &host;
    inherited_.image = read_image_addresses();
    inherited_.owner_pidfd = owner_pidfd;
    limit_error_ = raise_descriptor_limit(inherited_);
}

std::string Forker::find_obstacle(const std::vector<int>& own, const void* shared) {
    stopping_point("template.preloaded");
    std::string obstacle = host_.obstacle();
    // A twin's channel is added in a child, where nothing may grow.
    inherited_.image_descriptors.reserve(kMostImageDescriptors + 1);
    for (const DescriptorFact& fact : list_descriptors(own))
        inherited_.image_descriptors.push_back(fact.number);
    if (const std::size_t count = inherited_.image_descriptors.size();
        count > kMostImageDescriptors && obstacle.empty())
        obstacle = fmt::format("not safe to fork: preloading left {} descriptors open; {} at most",
                               count, kMostImageDescriptors);
    if (int error = clone_.prepare(); error && obstacle.empty())
        obstacle = error == EBUSY ? "not safe to fork: the main thread holds a robust mutex"
                                  : fmt::format(
                                        "cannot fork: the kernel does not tell the address "
                                        "of the thread id (PR_GET_TID_ADDRESS): {}",
                                        std::strerror(error));
    if (int error = timer_.error(); error && obstacle.empty())
        obstacle =
            fmt::format("cannot fork: there is no timer for fork handlers that do not return: {}",
                        std::strerror(error));
    if (limit_error_ && obstacle.empty())
        obstacle = fmt::format("cannot fork: the limit on open files cannot be read or set: {}",
                               std::strerror(limit_error_));
    if (obstacle.empty()) obstacle = libraries_in_the_way(preload_);
    if (obstacle.empty()) obstacle = findings_in_the_way(allowed(), host_.findings());
    if (obstacle.empty()) obstacle = mappings_in_the_way(allowed(), {shared});
    return obstacle.empty() ? try_handlers(own) : obstacle;
}

/// Runs the handlers, as they may be what leaves one thread: OpenBLAS ends its pool in its own. It
/// is the owner's to see that one does not return, and the owner's end ends this process.
std::string Forker::try_handlers(const std::vector<int>& own) {
    if (int error = handlers_.take(preload_)) return obstacle_of_handlers(error);
    check_.prepare(own);
    host_.before_fork();
    handlers_.prepare();
    const bool is_safe = check_.run();
    handlers_.parent();
    host_.after_fork_in_template();
    check_.finish(0);
    return is_safe ? std::string() : check_.obstacle();
}

ForkResult Forker::fork(const ChildPlan& plan, std::atomic<std::int32_t>& shown_pid,
                        std::vector<int> own) {
    if (int error = handlers_.take(preload_))
        return {.failure = {Stage::gate, EBUSY, obstacle_of_handlers(error)}};
    check_.prepare(std::move(own));
    timer_.start();
    host_.before_fork();
    handlers_.prepare();
    // From here to the handlers that follow the fork, in this process, in the child and in its
    // twin, nothing allocates or takes a lock: malloc's own may be held.
    Descriptor pidfd;
    const bool is_safe = check_.run();
    timer_.stop();  // the fork itself takes as long as it takes
    const auto began = Clock::now();
    const int pid = is_safe ? clone_.clone_sibling(shown_pid, pidfd) : -ECANCELED;
    stopping_point(pid == 0 ? "child.forked" : "template.forked");
    if (pid == 0) return begin_child(plan);
    microseconds_ = std::chrono::duration<double, std::micro>(Clock::now() - began).count();
    timer_.start();
    handlers_.parent();
    host_.after_fork_in_template();
    timer_.stop();
    check_.finish(pidfd ? 1 : 0);
    bound_output();
    return result_in_template(pid, is_safe, std::move(pidfd));
}

/// Takes the first steps in the newborn process.
ForkResult Forker::begin_child(const ChildPlan& plan) {
    TwinBirth twin;
    // This comes before the handlers, so that the twin is as little touched as the template itself.
    if (leaves_twins_) twin = leave_twin(clone_, plan);
    if (!twin.is_this_process) take_signals_by_default();
    // The template's own is not inherited, and nobody knows of this process yet who could end it.
    std::optional<HandlerTimer> timer_of_twin;
    if (twin.is_this_process && timer_of_twin.emplace().error()) ::_exit(kFailedStatus);
    if (timer_of_twin) timer_of_twin->start();
    handlers_.child();
    host_.after_fork_in_child();
    timer_of_twin.reset();
    // Before the record nobody hears why; a handler may have installed a filter.
    if (!set_signal_mask(kAllSignals)) ::_exit(kFailedStatus);
    if (twin.is_this_process)
        return {.self = ForkResult::Self::twin, .channel = std::move(twin.channel)};
    if (twin.channel)
        inherited_.image_descriptors.push_back(
            host_.keep_twin(twin.process, std::move(twin.channel), facts_));
    return {.self = ForkResult::Self::child};
}

ForkResult Forker::result_in_template(int pid, bool is_safe, Descriptor pidfd) {
    if (pid > 0) return {.pid = pid, .pidfd = std::move(pidfd)};
    if (is_safe) return {.failure = {Stage::fork, -pid, "the template cannot fork"}};
    return {.failure = {Stage::gate, EBUSY, check_.obstacle()}};
}

}  // namespace warmfork
