#include "keeper/end_processes.hpp"

#include <poll.h>
#include <signal.h>

#include <chrono>

namespace warmfork {
namespace {

void forget_ended(std::vector<Ward>& wards, int timeout) {
    std::vector<pollfd> polled;
    for (const Ward& ward : wards) polled.push_back({ward.pidfd.get(), POLLIN, 0});
    if (::poll(polled.data(), polled.size(), timeout) <= 0) return;
    std::vector<Ward> running;
    for (std::size_t i = 0; i < wards.size(); ++i)
        if (polled[i].revents == 0) running.push_back(std::move(wards[i]));
    wards = std::move(running);
}

}  // namespace

void end_processes(std::vector<Ward> wards) {
    using Clock = std::chrono::steady_clock;
    for (const Ward& ward : wards)
        if (!ward.told_by_kernel) signal_pidfd(ward.pidfd.get(), SIGTERM);
    const auto deadline = Clock::now() + std::chrono::milliseconds(kGracePeriod);
    while (!wards.empty()) {
        const auto left =
            std::chrono::duration_cast<std::chrono::milliseconds>(deadline - Clock::now()).count();
        if (left <= 0) break;
        forget_ended(wards, static_cast<int>(left));
    }
    for (const Ward& ward : wards) signal_pidfd(ward.pidfd.get(), SIGKILL);
    while (!wards.empty()) forget_ended(wards, -1);
}

}  // namespace warmfork
