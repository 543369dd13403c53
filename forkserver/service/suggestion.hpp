// What was probably meant.
#pragma once

#include <string>
#include <string_view>
#include <vector>

namespace warmfork::service {

/// The candidate that `found` is a misspelling or an abbreviation of: few letters left out, put in,
/// exchanged or swapped. Empty: none is near.
[[nodiscard]] std::string find_nearest(std::string_view found,
                                       const std::vector<std::string>& candidates);

/// `; did you mean "..."?`, or, where nothing is near, nothing.
[[nodiscard]] std::string suggestion(std::string_view found,
                                     const std::vector<std::string>& candidates);

}  // namespace warmfork::service
