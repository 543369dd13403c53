// What a service that a client has started does not keep of that client.
#pragma once

#include <string>
#include <vector>

namespace warmfork::service {

/// Takes back what the calling process has inherited and clients that come later would not want to
/// share: signals, umask, priorities, processors, soft limits and what else fork and exec hand down
/// (where the kernel has no default for all systems, it is as the system's first process has it).
/// It must be called before there are threads. Returns what could not be taken back, in words;
/// cgroup, namespaces, root directory, groups, lost capabilities and confinement by security
/// modules are never among it, as nothing can be said of them.
[[nodiscard]] std::vector<std::string> return_to_clean_state();

}  // namespace warmfork::service
