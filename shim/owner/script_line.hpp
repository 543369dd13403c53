// What becomes of a command whose program is a script: the `#!` line, read as the kernel does it.
#pragma once

#include <optional>
#include <span>
#include <string>
#include <string_view>
#include <vector>

namespace warmfork {

/// The first bytes of a file, of which the kernel reads no more either.
inline constexpr std::size_t kScriptLineSize = 256;

struct ScriptLine {
    std::string interpreter;
    std::optional<std::string> argument;  ///< all that stands behind it, as one
};

/// `start`: of a file, at most kScriptLineSize bytes. Nothing: there is no `#!`, or the line does
/// not end within them, or names no interpreter by its full path.
[[nodiscard]] std::optional<ScriptLine> parse_script_line(std::string_view start);

/// What env(1) would run: `arguments` without it and its -S. Empty: it would do something else, or
/// it takes more than a glance to tell.
[[nodiscard]] std::vector<std::string> skip_env(const std::vector<std::string>& arguments);

/// The command line that an interpreter comes to see.
struct ScriptCommand {
    std::string executed;  ///< the file that exec was called with last: names the process
    std::vector<std::string> arguments;
};

/// What exec makes of `program`, looked up in the child's PATH, where this is a script, env(1), or
/// a script for a script, and so on. Nothing: it is neither, or what becomes of it cannot be told.
/// `directory`: the child's. Reads files, and so may block as exec does.
[[nodiscard]] std::optional<ScriptCommand> find_script_command(const std::string& program,
                                                               std::span<char* const> arguments,
                                                               std::span<char* const> environment,
                                                               const std::string& directory);

}  // namespace warmfork
