// A service where none is: started in the background, for this user.
#pragma once

#include "owner/failure.hpp"

namespace warmfork {

/// Starts warmforkd, which goes on without this process, and returns when it listens on `path`, or
/// another one does. Blocks for some milliseconds. A failure has its own words.
[[nodiscard]] Outcome launch_service(const std::string& path);

}  // namespace warmfork
