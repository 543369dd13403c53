// What was probably meant.
#pragma once

#include <string>
#include <string_view>
#include <vector>

namespace warmfork::service {

/// Returns the candidate that `found` is a misspelling or an abbreviation of, with few letters left
/// out, put in, exchanged or swapped. Returns an empty text where none is near.
[[nodiscard]] std::string find_nearest(std::string_view found,
                                       const std::vector<std::string>& candidates);

/// Returns `; did you mean "..."?`, or, where nothing is near, an empty text.
[[nodiscard]] std::string suggestion(std::string_view found,
                                     const std::vector<std::string>& candidates);

}  // namespace warmfork::service
