// What a service that a client has started does not keep of that client.
#pragma once

#include <string>
#include <vector>

namespace warmfork::service {

/// Takes back what the calling process has inherited and clients that come later would not want to
/// share: umask, priorities, processors, soft limits (as the system's first process has them),
/// timer slack, personality. It must be called before there are threads. Returns what could not be
/// taken back, in words; the cgroup is never among it, as nothing can be said of that.
[[nodiscard]] std::vector<std::string> return_to_clean_state();

}  // namespace warmfork::service
