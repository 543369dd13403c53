// What becomes of a command whose program is a script: the `#!` line, read as the kernel does it.
#pragma once

#include <optional>
#include <span>
#include <string>
#include <string_view>
#include <vector>

namespace warmfork {

/// How much of a file is read at its beginning. The kernel reads no more either.
inline constexpr std::size_t kScriptLineSize = 256;

struct ScriptLine {
    std::string interpreter;
    std::optional<std::string> argument;  ///< all that stands behind it, as one
};

/// Reads the line from the `start` of a file, at most kScriptLineSize bytes. Returns nothing where
/// there is no `#!`, the line does not end within these bytes, or it names no interpreter by its
/// full path.
[[nodiscard]] std::optional<ScriptLine> parse_script_line(std::string_view start);

/// Returns what env(1) would run: `arguments` without it and its -S. Returns nothing where it would
/// do something else, or that cannot be told from the arguments alone.
[[nodiscard]] std::vector<std::string> skip_env(const std::vector<std::string>& arguments);

/// The command line that an interpreter comes to see.
struct ScriptCommand {
    std::string executed;  ///< the file that exec was called with last: names the process
    std::vector<std::string> arguments;
};

/// Returns what exec makes of `program`, looked up in the child's PATH, where this is a script,
/// env(1), or a script for a script, and so on; nothing where it is none of these, or it cannot be
/// told what becomes of it. `directory` is the child's. Reads files, and so may block as exec does.
[[nodiscard]] std::optional<ScriptCommand> find_script_command(const std::string& program,
                                                               std::span<char* const> arguments,
                                                               std::span<char* const> environment,
                                                               const std::string& directory);

}  // namespace warmfork
