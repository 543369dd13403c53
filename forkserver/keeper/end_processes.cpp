#include "keeper/end_processes.hpp"

#include <signal.h>

#include <algorithm>

#include "channel/deadline.hpp"

namespace warmfork {
namespace {

/// False: it still runs. One after the other: a poll(2) of all would be bounded by RLIMIT_NOFILE.
bool wait_for_end(const GuardedChild& child,
                  std::optional<std::chrono::steady_clock::time_point> deadline) {
    pollfd polled{child.pidfd.get(), POLLIN, 0};
    return poll_through_signals(std::span(&polled, 1), deadline) > 0;
}

}  // namespace

void end_processes(std::vector<GuardedChild> children) {
    for (const GuardedChild& child : children)
        if (!child.told_by_kernel) signal_pidfd(child.pidfd.get(), SIGTERM);
    const auto deadline =
        std::chrono::steady_clock::now() + std::chrono::milliseconds(kGracePeriod);
    std::erase_if(children,
                  [&](const GuardedChild& child) { return wait_for_end(child, deadline); });
    for (const GuardedChild& child : children) signal_pidfd(child.pidfd.get(), SIGKILL);
    for (const GuardedChild& child : children) wait_for_end(child, {});
}

}  // namespace warmfork
