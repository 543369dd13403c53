// How processes end with their owner: SIGTERM, time to comply, SIGKILL.
#pragma once

#include <vector>

#include "channel/descriptor.hpp"

namespace warmfork {

/// What a process may take for its own clean end before SIGKILL, in milliseconds.
inline constexpr int kGracePeriod = 3000;

/// A process that ends with its owner.
struct GuardedChild {
    Descriptor pidfd;
    bool told_by_kernel = false;  ///< has SIGTERM already, as its parent-death signal
};

/// Ends every child, and returns when all have ended: as soon as the last one has complied, after
/// kGracePeriod at the latest.
void end_processes(std::vector<GuardedChild> children);

}  // namespace warmfork
