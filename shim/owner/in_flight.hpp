// The kernel sends no descriptors while more of a user's are in flight than the sender may have
// open.
#pragma once

#include <algorithm>
#include <cerrno>

#include "owner/failure.hpp"
#include "owner/waiting.hpp"

namespace warmfork {

/// Makes an attempt, and makes it again for some seconds, until the deadline at most, while too
/// many descriptors are in flight, in whatever process. Returns what the last attempt did. It is
/// for callers that want a template, and no cold child. The lack passes, as whoever the descriptors
/// are sent to takes them. No lock may be held.
template <typename Attempt>
[[nodiscard]] Outcome outwait_descriptors_in_flight(Deadline deadline, Attempt attempt) {
    constexpr std::chrono::milliseconds kMoment{2};  // nobody tells when it has passed
    const auto patience = WaitClock::now() + kStartPatience;
    const auto latest = std::min(deadline.value_or(patience), patience);
    while (true) {
        Outcome failure = attempt();
        const bool is_passing = failure && failure->error_number == ETOOMANYREFS;
        if (!is_passing || was_interrupted() || WaitClock::now() >= latest) return failure;
        static_cast<void>(poll_until({}, WaitClock::now() + kMoment));
    }
}

}  // namespace warmfork
