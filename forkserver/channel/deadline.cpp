#include "channel/deadline.hpp"

#include <sys/wait.h>

#include <algorithm>
#include <cerrno>

#include "channel/process_identity.hpp"

namespace warmfork {

using Clock = std::chrono::steady_clock;

int milliseconds_until(std::optional<Clock::time_point> deadline) {
    if (!deadline) return -1;
    const auto left = std::chrono::ceil<std::chrono::milliseconds>(*deadline - Clock::now());
    return static_cast<int>(std::clamp<std::int64_t>(left.count(), 0, 1'000'000'000));
}

int poll_through_signals(std::span<pollfd> polled, std::optional<Clock::time_point> deadline) {
    while (true) {
        const int ready = ::poll(polled.data(), polled.size(), milliseconds_until(deadline));
        if (ready >= 0 || errno != EINTR) return ready;
    }
}

int reap_by(Clock::time_point deadline, int pidfd, int* ret_status) {
    pollfd ended{pidfd, POLLIN, 0};
    static_cast<void>(poll_through_signals(std::span(&ended, 1), deadline));
    return reap(pidfd, WNOHANG, ret_status, nullptr);
}

}  // namespace warmfork
