#include "service/suggestion.hpp"

#include <algorithm>

namespace warmfork::service {
namespace {

// What is longer is no misspelling of anything here, and the time grows with the square of the
// length.
constexpr std::size_t kLongest = 100;

/// Returns Damerau and Levenshtein's distance, with no part edited twice.
std::size_t edit_distance(std::string_view one, std::string_view other) {
    std::vector<std::size_t> row(other.size() + 1), above(other.size() + 1), above_that;
    for (std::size_t j = 0; j < row.size(); ++j) row[j] = j;
    for (std::size_t i = 1; i <= one.size(); ++i) {
        above_that = above;
        above = row;
        row[0] = i;
        for (std::size_t j = 1; j <= other.size(); ++j) {
            row[j] = std::min({above[j] + 1, row[j - 1] + 1,
                               above[j - 1] + (one[i - 1] == other[j - 1] ? 0 : 1)});
            if (i > 1 && j > 1 && one[i - 1] == other[j - 2] && one[i - 2] == other[j - 1])
                row[j] = std::min(row[j], above_that[j - 2] + 1);
        }
    }
    return row.back();
}

}  // namespace

std::string find_nearest(std::string_view found, const std::vector<std::string>& candidates) {
    if (found.size() > kLongest) return {};
    std::string nearest;
    std::size_t least = (found.size() + 2) / 3 + 1;
    for (const std::string& candidate : candidates) {
        const std::size_t distance =
            found.size() >= 3 && candidate.starts_with(found) ? 1 : edit_distance(found, candidate);
        if (distance >= least || distance >= candidate.size()) continue;
        least = distance;
        nearest = candidate;
    }
    return nearest;
}

std::string suggestion(std::string_view found, const std::vector<std::string>& candidates) {
    const std::string nearest = find_nearest(found, candidates);
    return nearest.empty() ? "" : "; did you mean \"" + nearest + "\"?";
}

}  // namespace warmfork::service
