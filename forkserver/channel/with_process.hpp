// What is done to a process that is known by its identity, also where no descriptor is free.
#pragma once

#include <functional>

#include "channel/process_identity.hpp"

namespace warmfork {

/// Calls `use` with a pidfd of this very process and returns what it returns, or errno as of
/// open_process. Where this process has no descriptor free another thread does it, with a copy of
/// all descriptors that lets go of some, while the caller waits: so `use` does nothing that may
/// wait.
[[nodiscard]] int with_process(const ProcessIdentity& process,
                               const std::function<int(int pidfd)>& use);

}  // namespace warmfork
