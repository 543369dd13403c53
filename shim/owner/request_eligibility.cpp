#include "owner/request_eligibility.hpp"

#include <sys/resource.h>
#include <sys/stat.h>
#include <unistd.h>

#include <algorithm>
#include <array>
#include <cerrno>
#include <filesystem>
#include <optional>
#include <span>

namespace warmfork {
namespace {

/// Where the child looks for modules before its installation: the program's own directory, and what
/// the request says, or PYTHONPATH. Nothing: that cannot be told.
std::optional<std::vector<std::string>> import_path(const Request& request,
                                                    const PythonCommand& command) {
    const std::string directory = request.directory();
    std::vector<std::string> path;
    if (!command.has_safe_path()) {
        const bool is_script = command.kind == PythonCommand::Kind::script;
        const std::optional<std::string> first =
            is_script ? import_directory(directory, command.operand) : directory;
        if (!first) return {};
        path.push_back(*first);
    }
    if (const char* const* entries = request.python_path()) {
        for (; *entries; ++entries) path.push_back(*entries);
    } else if (!command.ignores_environment()) {
        for (const std::string& entry : python_path_of(request.environment()))
            path.push_back(std::filesystem::path(directory) / entry);
    }
    return path;
}

/// Finds numbers above the limit, which a process may have lowered below what it has open. No call
/// puts a descriptor there again; a cold child inherits it.
ColdReason find_number_reason(const Request& request) {
    const std::vector<std::int32_t>& targets = request.contents().descriptor_targets;
    const auto highest = std::max_element(targets.begin(), targets.end());
    // Most requests have only the standard streams, which are not worth a system call.
    if (highest == targets.end() || *highest <= STDERR_FILENO) return {};
    rlimit limit;
    if (::getrlimit(RLIMIT_NOFILE, &limit) < 0)
        return {WARMFORK_REASON_LIMITS, "the limit on open files cannot be read"};
    if (static_cast<rlim_t>(*highest) < limit.rlim_cur) return {};
    return {WARMFORK_REASON_LIMITS,
            "descriptor " + std::to_string(*highest) + " is not below the limit on open files"};
}

ColdReason find_descriptor_reason(const Request& request, std::span<const int> image_descriptors) {
    const std::vector<std::int32_t>& targets = request.contents().descriptor_targets;
    for (int number : image_descriptors)
        if (std::find(targets.begin(), targets.end(), number) != targets.end())
            return {WARMFORK_REASON_DESCRIPTORS,
                    "descriptor " + std::to_string(number) + " is in use by a preloaded module"};
    return {};
}

bool is_same_or_absent(const std::string& one, const std::string& other) {
    struct stat status;
    if (::lstat(one.c_str(), &status) == 0) return is_same_file(one, other);
    return errno == ENOENT && ::lstat(other.c_str(), &status) < 0 && errno == ENOENT;
}

/// Where preloading has looked into its directory, or keeps it, what would it have found in the
/// child's?
ColdReason find_directory_reason(const Request& request, const ModuleFiles& shadowable) {
    // No module's name begins like these.
    for (auto entry = shadowable.lower_bound("."); entry != shadowable.end(); ++entry) {
        const auto& [name, path] = *entry;
        if (!name.starts_with('.')) break;
        if (name.starts_with("./")) {
            if (is_same_or_absent(request.directory() + name.substr(1), path)) continue;
            return {WARMFORK_REASON_SHADOWED,
                    "preloading has read or looked for " + name.substr(2) +
                        ", which is not the same in the child's directory"};
        }
        if (is_same_file(request.directory(), path)) continue;
        const std::string who = name == "." ? "preloading" : "the module " + name.substr(1);
        return {WARMFORK_REASON_SHADOWED,
                who + " depends on the directory that it was imported in, " + path +
                    ", and the child's is another one"};
    }
    return {};
}

}  // namespace

ColdReason find_selection(const Request& request, bool is_python, const std::string& program,
                          PythonCommand& ret_command, Selection& ret_selection) {
    if (request.has_exec_limits())
        return {WARMFORK_REASON_LIMITS,
                "a limit on stack, data or address space only takes effect at exec"};
    if (ColdReason reason = find_number_reason(request)) return reason;
    if (ColdReason reason =
            find_program_reason(is_python, program, request.program(), request.arguments(),
                                request.environment(), request.directory()))
        return reason;
    ret_selection.environment = request.environment();
    if (!is_python) return {};
    ret_command = parse_python_command(request.arguments());
    ret_selection.options = ret_command.options;
    ret_selection.is_isolated = ret_command.is_isolated();
    const std::array<int, 3> streams{request.source_of(0), request.source_of(1),
                                     request.source_of(2)};
    return find_python_reason(ret_command, request.environment(), streams);
}

ColdReason find_common_reason(const Request& request, const ImageTraits& image) {
    if (ColdReason reason = find_descriptor_reason(request, image.descriptors)) return reason;
    return find_directory_reason(request, image.shadowable);
}

ColdReason find_image_reason(const Request& request, const PythonCommand& command,
                             const ImageTraits& image, ShadowSearch& shadows) {
    if (ColdReason reason = find_common_reason(request, image)) return reason;
    if (has_relative_path(command, request.environment()) &&
        !is_same_file(request.directory(), image.directory))
        return {WARMFORK_REASON_ENVIRONMENT,
                "PYTHONPATH has a relative entry, and the directory is not the template's"};
    const std::optional<std::vector<std::string>> path = import_path(request, command);
    if (!path)
        return {WARMFORK_REASON_SHADOWED,
                command.operand + " cannot be read, to see where its modules are looked for"};
    const std::string shadow = shadows.find(*path, image.pid, image.shadowable);
    if (shadow.empty()) return {};
    return {WARMFORK_REASON_SHADOWED,
            shadow + " would be imported instead of a preloaded module of that name"};
}

}  // namespace warmfork
