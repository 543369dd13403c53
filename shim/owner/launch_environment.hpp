// What a template finds in its environment beside what it was asked for, and a program that was
// started as one by mistake.
#pragma once

#include <string>
#include <vector>

#include "owner/failure.hpp"

namespace warmfork {

/// Adds the preload library in front of others, and the channel's number.
[[nodiscard]] std::vector<std::string> with_launch(std::vector<std::string> environment,
                                                   const std::string& preload_library);

/// Takes out of an environment what with_launch has put into it.
[[nodiscard]] std::vector<std::string> without_launch(std::vector<std::string> environment,
                                                      const std::string& preload_library);

/// Fails with ELOOP where this process was itself started as a template, and is none yet, or cannot
/// become one. To start one from here might go on without end.
[[nodiscard]] Outcome find_own_launch();

}  // namespace warmfork
