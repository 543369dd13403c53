// Finds in what two environments differ, as far as an image depends on it.
#pragma once

#include <functional>
#include <optional>
#include <set>
#include <span>
#include <string>
#include <string_view>
#include <vector>

namespace warmfork {

/// The variables that an image depends on beyond those that always count.
struct ReadVariables {
    std::set<std::string, std::less<>> names;
    bool all = false;  ///< it has looked at the environment as a whole
};

/// Is it read by libc, the loader or the interpreter in ways that cannot be recorded? Then it is
/// always taken as read.
[[nodiscard]] bool always_counts(std::string_view name, bool is_python);

/// Returns a variable that the image depends on and that differs between `wanted` and
/// `started_with`; empty where there is none. Where a name is given twice the first counts, as for
/// getenv.
[[nodiscard]] std::string differing_variable(std::span<const std::string> started_with,
                                             std::span<char* const> wanted,
                                             const ReadVariables& read, bool is_python);

/// Returns what an image is to be started with for a request: `plain`, with those variables that an
/// image depends on taken from `wanted`. The others are for the request's child alone.
[[nodiscard]] std::vector<std::string> image_environment(std::span<char* const> plain,
                                                         std::span<char* const> wanted,
                                                         const ReadVariables& read, bool is_python);

/// Are they the same, string by string?
[[nodiscard]] bool is_same_environment(std::span<const std::string> one,
                                       std::span<char* const> other);

/// Returns the value of a variable in an environment of NAME=VALUE strings, or null where it is not
/// there.
[[nodiscard]] const char* find_variable(std::span<char* const> environment, const char* name);

/// Returns pointers into what is given, or, where that is nothing, into this process's own.
[[nodiscard]] std::vector<char*> variables_of(std::optional<std::vector<std::string>>& environment);

}  // namespace warmfork
