// Starts a service in the background, for this user, where there is none.
#pragma once

#include "owner/failure.hpp"

namespace warmfork {

/// Starts warmforkd, which goes on without this process, and returns when it listens on `path`, or
/// another one does. Blocks for some milliseconds. A failure says in its text what was wrong.
[[nodiscard]] Outcome launch_service(const std::string& path);

}  // namespace warmfork
