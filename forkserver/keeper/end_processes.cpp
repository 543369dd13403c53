#include "keeper/end_processes.hpp"

#include <poll.h>
#include <signal.h>

#include <algorithm>
#include <chrono>
#include <optional>

namespace warmfork {
namespace {

using Clock = std::chrono::steady_clock;

/// False: it still runs. One after the other: a poll(2) of all would be bounded by RLIMIT_NOFILE.
bool wait_for_end(const KeptChild& child, std::optional<Clock::time_point> deadline) {
    pollfd polled{child.pidfd.get(), POLLIN, 0};
    while (true) {
        int timeout = -1;
        if (deadline)
            timeout = static_cast<int>(std::max<std::int64_t>(
                0, std::chrono::ceil<std::chrono::milliseconds>(*deadline - Clock::now()).count()));
        const int ready = ::poll(&polled, 1, timeout);
        if (ready >= 0 || errno != EINTR) return ready != 0;
    }
}

}  // namespace

void end_processes(std::vector<KeptChild> children) {
    for (const KeptChild& child : children)
        if (!child.told_by_kernel) signal_pidfd(child.pidfd.get(), SIGTERM);
    const auto deadline = Clock::now() + std::chrono::milliseconds(kGracePeriod);
    std::erase_if(children, [&](const KeptChild& child) { return wait_for_end(child, deadline); });
    for (const KeptChild& child : children) signal_pidfd(child.pidfd.get(), SIGKILL);
    for (const KeptChild& child : children) wait_for_end(child, {});
}

}  // namespace warmfork
