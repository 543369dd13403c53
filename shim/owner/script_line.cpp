#include "owner/script_line.hpp"

#include <fcntl.h>
#include <sys/stat.h>
#include <unistd.h>

#include <algorithm>
#include <array>
#include <filesystem>

#include "channel/descriptor.hpp"
#include "owner/eligibility.hpp"

namespace warmfork {
namespace {

namespace fs = std::filesystem;

// One more is ELOOP: see exec_binprm in Linux' fs/exec.c.
constexpr int kMostScripts = 5;
// Each call of env is an exec of its own. Nobody's command line has more of them than this.
constexpr int kMostExecs = 4;

constexpr std::string_view kBlanks = " \t";
constexpr std::string_view kBlanksOfEnv = " \t\n\v\f\r";
/// Characters to which env -S gives a meaning.
constexpr std::string_view kSpecialToEnv = "\\'\"$#";

constexpr std::array<std::string_view, 2> kEnvPaths{"/usr/bin/env", "/bin/env"};

/// Is it coreutils' env? Another program that stands in for it shows by its name.
bool is_env(const std::string& path) {
    if (std::find(kEnvPaths.begin(), kEnvPaths.end(), path) == kEnvPaths.end()) return false;
    std::error_code error;
    const std::string real = fs::canonical(path, error);
    return std::find(kEnvPaths.begin(), kEnvPaths.end(), real) != kEnvPaths.end();
}

std::optional<ScriptLine> read_script_line(const std::string& path) {
    // A pipe or a device must not keep this process waiting.
    const Descriptor file(::open(path.c_str(), O_RDONLY | O_CLOEXEC | O_NONBLOCK | O_NOCTTY));
    struct stat status;
    if (!file || ::fstat(file.get(), &status) < 0 || !S_ISREG(status.st_mode)) return {};
    std::array<char, kScriptLineSize> start;
    const ssize_t size = ::pread(file.get(), start.data(), start.size(), 0);
    if (size <= 0) return {};
    return parse_script_line({start.data(), static_cast<std::size_t>(size)});
}

std::vector<std::string> split(std::string_view text) {
    std::vector<std::string> words;
    while (true) {
        text.remove_prefix(std::min(text.find_first_not_of(kBlanksOfEnv), text.size()));
        if (text.empty()) return words;
        const std::size_t size = std::min(text.find_first_of(kBlanksOfEnv), text.size());
        words.emplace_back(text.substr(0, size));
        text.remove_prefix(size);
    }
}

/// Puts the arguments in front that the interpreter gets instead of the script's own name.
void put_in_front(const ScriptLine& line, const std::string& script,
                  std::vector<std::string>& arguments) {
    std::vector<std::string> front{line.interpreter};
    if (line.argument) front.push_back(*line.argument);
    front.push_back(script);
    arguments.erase(arguments.begin());
    arguments.insert(arguments.begin(), front.begin(), front.end());
}

/// Does what one exec of `path` does: follows scripts to what is none, and puts its arguments in
/// front. Returns the path of that, or an empty one where this exec fails.
std::string follow_scripts(std::string path, const std::string& directory,
                           std::vector<std::string>& arguments) {
    for (int scripts = 0;; ++scripts) {
        const std::optional<ScriptLine> line = read_script_line(fs::path(directory) / path);
        if (!line) return path;
        if (scripts == kMostScripts || !is_executable(line->interpreter)) return {};
        put_in_front(*line, path, arguments);
        path = line->interpreter;
    }
}

}  // namespace

std::optional<ScriptLine> parse_script_line(std::string_view start) {
    if (!start.starts_with("#!")) return {};
    const std::size_t end = start.substr(0, kScriptLineSize).find('\n');
    if (end == std::string_view::npos) return {};
    std::string_view line = start.substr(2, end - 2);
    if (line.find('\0') != std::string_view::npos) return {};
    line.remove_prefix(std::min(line.find_first_not_of(kBlanks), line.size()));
    line = line.substr(0, line.find_last_not_of(kBlanks) + 1);
    // From another directory than the interpreter's, which looks itself up, the kernel finds
    // another.
    if (!line.starts_with('/')) return {};
    const std::size_t size = line.find_first_of(kBlanks);
    ScriptLine parsed{std::string(line.substr(0, size)), {}};
    if (size != std::string_view::npos)
        parsed.argument = line.substr(line.find_first_not_of(kBlanks, size));
    return parsed;
}

std::vector<std::string> skip_env(const std::vector<std::string>& arguments) {
    std::vector<std::string> rest(arguments.begin() + 1, arguments.end());
    if (rest.empty()) return {};
    for (const std::string_view option : {"-S", "--split-string="}) {
        if (!rest.front().starts_with(option)) continue;
        const std::string text = rest.front().substr(option.size());
        if (text.find_first_of(kSpecialToEnv) != std::string::npos) return {};
        const std::vector<std::string> words = split(text);
        if (words.empty()) return {};
        rest.erase(rest.begin());
        rest.insert(rest.begin(), words.begin(), words.end());
        break;
    }
    // This is another option, or a variable.
    const std::string& program = rest.front();
    if (program.empty() || program[0] == '-' || program.find('=') != std::string::npos) return {};
    return rest;
}

std::optional<ScriptCommand> find_script_command(const std::string& program,
                                                 std::span<char* const> arguments,
                                                 std::span<char* const> environment,
                                                 const std::string& directory) {
    ScriptCommand command{program, {arguments.begin(), arguments.end()}};
    std::string wanted = program;
    for (int execs = 0; execs < kMostExecs; ++execs) {
        command.executed = find_executable(wanted, environment, directory);
        // What env finds for an empty entry of PATH has another name than what exec here finds.
        if (command.executed.empty() || (execs > 0 && command.executed[0] != '/')) return {};
        const std::size_t count = command.arguments.size();
        const std::string path = follow_scripts(command.executed, directory, command.arguments);
        if (path.empty()) return {};
        if (!is_env(path)) {
            const bool is_itself = execs == 0 && command.arguments.size() == count;
            return is_itself ? std::nullopt : std::optional(command);
        }
        command.arguments = skip_env(command.arguments);
        if (command.arguments.empty()) return {};
        wanted = command.arguments.front();
    }
    return {};
}

}  // namespace warmfork
