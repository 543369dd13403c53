// Views of strings as C takes them.
#pragma once

#include <string>
#include <vector>

namespace warmfork {

/// These are good for as long as the strings are neither changed nor moved. There is no null behind
/// the last.
[[nodiscard]] inline std::vector<const char*> pointers_to(const std::vector<std::string>& strings) {
    std::vector<const char*> pointers;
    for (const std::string& string : strings) pointers.push_back(string.c_str());
    return pointers;
}
[[nodiscard]] inline std::vector<char*> mutable_pointers_to(std::vector<std::string>& strings) {
    std::vector<char*> pointers;
    for (std::string& string : strings) pointers.push_back(string.data());
    return pointers;
}

}  // namespace warmfork
