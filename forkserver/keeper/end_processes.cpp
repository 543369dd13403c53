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
bool wait_for_end(const Ward& ward, std::optional<Clock::time_point> deadline) {
    pollfd polled{ward.pidfd.get(), POLLIN, 0};
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

void end_processes(std::vector<Ward> wards) {
    for (const Ward& ward : wards)
        if (!ward.told_by_kernel) signal_pidfd(ward.pidfd.get(), SIGTERM);
    const auto deadline = Clock::now() + std::chrono::milliseconds(kGracePeriod);
    std::erase_if(wards, [&](const Ward& ward) { return wait_for_end(ward, deadline); });
    for (const Ward& ward : wards) signal_pidfd(ward.pidfd.get(), SIGKILL);
    for (const Ward& ward : wards) wait_for_end(ward, {});
}

}  // namespace warmfork
