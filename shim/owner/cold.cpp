#include "owner/cold.hpp"
#include "owner/environment.hpp"

#include <signal.h>
#include <sys/resource.h>
#include <sys/syscall.h>
#include <sys/wait.h>
#include <unistd.h>

#include <algorithm>
#include <cerrno>

#include "channel/deadline.hpp"
#include "channel/descriptor.hpp"
#include "channel/stopping_point.hpp"
#include "child/setup.hpp"
#include "child/vfork.hpp"
#include "keeper/keeper.hpp"
#include "owner/waiting.hpp"

namespace warmfork {
namespace {

/// What the child of vfork works on. It lies in memory that both share, so that a failure comes
/// back.
struct ColdChild {
    ColdPlan& plan;
    std::vector<const char*> paths;
    std::vector<char*> arguments, environment;  ///< with a null pointer at the end
    std::vector<int> kept;
    ChildFailure failure;
    std::uint64_t began = 0;
};

std::vector<char*> with_end(std::span<const char* const> strings) {
    std::vector<char*> pointers;
    for (const char* string : strings) pointers.push_back(const_cast<char*>(string));
    pointers.push_back(nullptr);
    return pointers;
}

/// Opens a pidfd of the calling process. Where all numbers are in use it takes the place of a
/// descriptor that this process would close in a moment anyway; the caller keeps its own.
Descriptor open_own_pidfd(const ColdPlan& plan) {
    Descriptor pidfd = open_pidfd(::getpid());
    rlimit limit{};
    ::getrlimit(RLIMIT_NOFILE, &limit);
    const int end = static_cast<int>(std::min<rlim_t>(limit.rlim_cur, 1 << 20));
    for (int number = end - 1; !pidfd && errno == EMFILE && number > 2; --number) {
        const auto& sources = plan.sources;
        if (number == plan.keeper ||
            std::find(sources.begin(), sources.end(), number) != sources.end())
            continue;
        ::close(number);
        pidfd = open_pidfd(::getpid());
    }
    return pidfd;
}

bool give_self_to_keeper(ColdPlan& plan, ChildFailure& failure) {
    const Descriptor pidfd = open_own_pidfd(plan);
    const bool told_by_kernel = plan.record.header.flags & kRecordParentDeathSignal;
    plan.keeper_error = pidfd ? give_to_keeper(plan.keeper, pidfd.get(), told_by_kernel) : errno;
    if (plan.keeper_error) failure = {Stage::fork, plan.keeper_error, 0};
    return plan.keeper_error == 0;
}

bool set_default(std::uint64_t signals, ChildFailure& failure) {
    for (int signal = 1; signal <= 64; ++signal)
        if ((signals >> (signal - 1) & 1) && ::signal(signal, SIG_DFL) == SIG_ERR) {
            failure = {Stage::signals, errno, signal};
            return false;
        }
    return true;
}

int try_each(const std::vector<const char*>& paths, char* const* arguments,
             char* const* environment) {
    // As with execvp, a candidate that may not be executed is a better error than one that is not
    // there.
    int error = ENOENT;
    for (const char* path : paths) {
        // This goes past libc, where a preloaded library may have it start something else.
        ::syscall(SYS_execve, path, arguments, environment);
        if (errno == EACCES)
            error = EACCES;
        else if ((errno != ENOENT && errno != ENOTDIR) || paths.size() == 1)
            return errno;
    }
    return error;
}

/// Returns the status to end with, where exec has failed.
int run_cold_child(void* argument) {
    ColdChild& child = *static_cast<ColdChild*>(argument);
    ColdPlan& plan = child.plan;
    child.began = mark_by_time();
    if (plan.lifeline) {
        const int error = plan.lifeline->tie(::getpid());
        if (error) child.failure = {Stage::fork, error, 0};
        if (error) return 127;
    }
    if (plan.keeper >= 0 && !give_self_to_keeper(plan, child.failure)) return 127;
    stopping_point("cold-child.kept");
    if (!reset_handlers()) {
        child.failure = {Stage::signals, errno, 0};
        return 127;
    }
    if (!set_default(plan.signals_default, child.failure)) return 127;
    ChildDescriptors descriptors;
    descriptors.sources = plan.sources;
    descriptors.kept = child.kept;
    if (!set_up_child(plan.record, descriptors, child.failure)) return 127;
    stopping_point("cold-child.before-exec");
    if (!set_signal_mask(plan.signal_mask)) {
        child.failure = {Stage::signals, errno, 0};
        return 127;
    }
    child.failure.error_number =
        try_each(child.paths, child.arguments.data(), child.environment.data());
    child.failure.stage = Stage::exec;
    return 127;
}

std::string describe(const ColdPlan& plan, const ChildFailure& failure) {
    switch (failure.stage) {
        case Stage::exec:
            return "cannot execute " + plan.candidates.back();
        case Stage::directory:
            return std::string("cannot change to directory ") +
                   (plan.record.directory ? plan.record.directory : ".");
        case Stage::descriptors:
            return failure.detail < 0 ? "cannot close what is not for the child"
                                      : "cannot place descriptor " +
                                            std::to_string(failure.detail) + " of the child";
        default:
            return std::string("cannot start a child, stage ") + stage_name(failure.stage);
    }
}

}  // namespace

Outcome spawn_cold(ColdPlan& plan, ColdProcess& ret_process) {
    plan.keeper_error = 0;
    ColdChild child{plan, {}, with_end(plan.arguments), with_end(plan.environment), {}, {}};
    for (const std::string& candidate : plan.candidates) child.paths.push_back(candidate.c_str());
    child.kept.resize(kept_count(plan.record.descriptor_targets.size(), 0));

    const ChildStack stack;
    ColdProcess process;
    const std::uint64_t mask = signal_mask();
    stopping_point("owner.before-cold-fork");
    // A handler of this process must not run in the child.
    if (!set_signal_mask(kAllSignals))
        return make_failure(Stage::signals, errno, "cannot block signals");
    const int pid = vfork_on(stack, run_cold_child, &child, SIGCHLD, process.pidfd);
    static_cast<void>(set_signal_mask(mask));  // as a moment ago
    stopping_point("owner.cold-forked");
    if (pid < 0) return make_failure(Stage::fork, -pid, "cannot fork");
    process.identity = {pid, mark_of(process.pidfd.get(), child.began)};
    if (child.failure.stage != Stage::none) {
        // The child has ended, or is about to. Where there is no pidfd its number has to do: it is
        // some microseconds old.
        if (process.pidfd)
            static_cast<void>(reap(process.pidfd.get(), 0, nullptr, nullptr));
        else
            while (::waitpid(pid, nullptr, 0) < 0 && errno == EINTR) {
            }
        return make_failure(child.failure.stage, child.failure.error_number,
                            describe(plan, child.failure), child.failure.detail);
    }
    ret_process = std::move(process);
    return {};
}

void end_child(const ProcessIdentity& child) {
    const Descriptor pidfd = open_process(child);
    if (!pidfd || reap(pidfd.get(), WNOHANG, nullptr, nullptr) != EAGAIN) return;
    signal_pidfd(pidfd.get(), SIGKILL);
    static_cast<void>(reap_by(WaitClock::now() + kKillPatience, pidfd.get(), nullptr));
}

std::vector<std::string> executable_candidates(const std::string& program,
                                               std::span<char* const> environment) {
    if (program.find('/') != std::string::npos) return {program};
    const char* path = find_variable(environment, "PATH");
    std::string_view rest = path ? path : "/bin:/usr/bin";
    std::vector<std::string> candidates;
    while (true) {
        const std::size_t size = rest.find(':');
        const std::string directory(rest.substr(0, size));
        candidates.push_back(directory.empty() ? "./" + program : directory + "/" + program);
        if (size == std::string_view::npos) return candidates;
        rest.remove_prefix(size + 1);
    }
}

}  // namespace warmfork
