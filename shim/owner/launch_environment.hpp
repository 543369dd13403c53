// What a template finds in its environment beside what it was asked for.
#pragma once

#include <string>
#include <vector>

namespace warmfork {

/// With the preload library in front of others, and the channel's number.
[[nodiscard]] std::vector<std::string> with_launch(std::vector<std::string> environment,
                                                   const std::string& preload_library);

/// The other way round.
[[nodiscard]] std::vector<std::string> without_launch(std::vector<std::string> environment,
                                                      const std::string& preload_library);

}  // namespace warmfork
