#include "owner/eligibility.hpp"

#include <sys/stat.h>
#include <unistd.h>

#include <algorithm>
#include <cerrno>
#include <cstring>
#include <filesystem>
#include <string_view>

#include "link/cold_interpreter.hpp"
#include "link/real_program.hpp"
#include "owner/cold.hpp"
#include "owner/environment.hpp"

namespace warmfork {
namespace {

namespace fs = std::filesystem;

/// The pyvenv.cfg that an interpreter started by this path finds. The interpreter of a virtual
/// environment is a link to the same file and yet another installation.
std::string virtual_environment_of(const std::string& interpreter) {
    const fs::path directory = fs::path(interpreter).parent_path();
    std::error_code error;
    for (const fs::path& candidate :
         {directory / "pyvenv.cfg", directory.parent_path() / "pyvenv.cfg"})
        if (fs::exists(candidate, error)) return candidate.string();
    return {};
}

/// Is it known what the interpreter makes of it for sys.executable? Of a relative path with more
/// than a simple beginning each version makes something else.
bool is_plain_path(std::string_view path) {
    if (path.starts_with('/')) return !path.starts_with("//");
    if (path.starts_with("./")) path.remove_prefix(2);
    while (path.starts_with("../")) path.remove_prefix(3);
    if (path.starts_with('/') || path.starts_with("./")) return false;
    return path.find("//") == std::string_view::npos &&
           path.find("/./") == std::string_view::npos &&
           path.find("/../") == std::string_view::npos;
}

/// Returns the full path of what was found, or nothing where that is empty.
std::string full_path(const std::string& found, const std::string& directory) {
    if (found.empty() || found[0] == '/') return found;
    std::error_code error;
    return fs::absolute(fs::path(directory) / found, error).lexically_normal().string();
}

bool is_template_program(bool is_python, const std::string& template_program,
                         const std::string& path) {
    if (path == template_program) return true;
    if (!is_same_file(path, template_program)) return false;
    return !is_python || virtual_environment_of(path) == virtual_environment_of(template_program);
}

}  // namespace

bool is_executable(const std::string& path) {
    struct stat status;
    if (::access(path.c_str(), X_OK) < 0 || ::stat(path.c_str(), &status) < 0) return false;
    if (!S_ISREG(status.st_mode)) errno = EACCES;
    return S_ISREG(status.st_mode);
}

std::string find_executable(const std::string& program, std::span<char* const> environment,
                            const std::string& directory) {
    for (const std::string& candidate : executable_candidates(program, environment)) {
        const std::string path = fs::path(directory) / candidate;
        if (is_executable(path)) {
            if (!link::is_link_program(path.c_str())) return candidate;
            continue;
        }
        // In these cases exec goes on to the next, as in cold.cpp.
        if (errno != EACCES && errno != ENOENT && errno != ENOTDIR) break;
    }
    return {};
}

std::string resolve_program(const std::string& program, std::span<char* const> environment) {
    return full_path(find_executable(program, environment, "."), ".");
}

bool is_same_file(const std::string& one, const std::string& other) {
    struct stat status, other_status;
    return ::stat(one.c_str(), &status) == 0 && ::stat(other.c_str(), &other_status) == 0 &&
           status.st_dev == other_status.st_dev && status.st_ino == other_status.st_ino;
}

std::vector<std::string> python_path_of(std::span<char* const> environment) {
    const char* path = find_variable(environment, "PYTHONPATH");
    std::vector<std::string> entries;
    for (std::string_view rest = path ? path : ""; !rest.empty();) {
        const std::size_t size = std::min(rest.find(':'), rest.size());
        entries.emplace_back(rest.substr(0, size));
        rest.remove_prefix(std::min(size + 1, rest.size()));
    }
    return entries;
}

bool has_relative_path(const PythonCommand& command, std::span<char* const> environment) {
    const char* path = find_variable(environment, "PYTHONPATH");
    if (!path || !*path || command.ignores_environment()) return false;
    for (std::string_view rest = path;;) {
        if (!rest.starts_with('/')) return true;
        const std::size_t colon = rest.find(':');
        if (colon == std::string_view::npos) return false;
        rest.remove_prefix(colon + 1);
    }
}

ColdReason find_program_reason(bool is_python, const std::string& template_program,
                               const std::string& program, std::span<char* const> arguments,
                               std::span<char* const> environment, const std::string& directory) {
    if (is_python && !is_plain_path(arguments[0]))
        return {WARMFORK_REASON_PROGRAM, std::string("which path the interpreter makes of ") +
                                             arguments[0] + " differs between versions"};
    std::vector<std::string> programs{program};
    if (is_python && arguments[0] != program) programs.push_back(arguments[0]);
    for (const std::string& wanted : programs) {
        // There is nothing to look up where the template's own path is given, as with
        // sys.executable.
        if (wanted == template_program) continue;
        const std::string found = find_executable(wanted, environment, directory);
        if (is_python && wanted.find('/') == std::string::npos && !found.starts_with('/'))
            return {WARMFORK_REASON_PROGRAM, wanted + " is not found by a full path in PATH"};
        const std::string path = full_path(found, directory);
        if (path.empty() || !is_template_program(is_python, template_program, path))
            return {WARMFORK_REASON_PROGRAM,
                    wanted + " is not the template's program, " + template_program};
    }
    return {};
}

ColdReason find_python_reason(const PythonCommand& command, std::span<char* const> environment,
                              std::span<const int, 3> standard_streams) {
    if (!command.obstacle.empty()) return {WARMFORK_REASON_COMMAND_LINE, command.obstacle};
    if (command.kind == PythonCommand::Kind::standard_input &&
        (standard_streams[0] < 0 || ::isatty(standard_streams[0])))
        return {WARMFORK_REASON_COMMAND_LINE, "an interactive interpreter is started cold"};
    for (int stream : standard_streams)
        if (struct stat status;
            stream >= 0 && ::fstat(stream, &status) == 0 && S_ISDIR(status.st_mode))
            return {WARMFORK_REASON_COMMAND_LINE,
                    "a standard stream is a directory, which ends a cold interpreter"};
    if (command.ignores_environment()) return {};
    const char* seed = find_variable(environment, "PYTHONHASHSEED");
    if (seed && std::strcmp(seed, "random") == 0)
        return {WARMFORK_REASON_COMMAND_LINE, "PYTHONHASHSEED asks for a salt of its own"};
    const char* caches = find_variable(environment, "PYTHONPYCACHEPREFIX");
    if (caches && *caches && *caches != '/')
        return {WARMFORK_REASON_COMMAND_LINE,
                "PYTHONPYCACHEPREFIX is relative, so that it depends on the directory"};
    for (const char* name : link::kColdVariables)
        if (const char* value = find_variable(environment, name); value && *value)
            return {WARMFORK_REASON_COMMAND_LINE,
                    std::string(name) + " is honoured by a cold interpreter only"};
    return {};
}

}  // namespace warmfork
