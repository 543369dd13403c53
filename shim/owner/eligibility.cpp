#include "owner/eligibility.hpp"

#include <sys/stat.h>
#include <unistd.h>

#include <algorithm>
#include <array>
#include <cstring>
#include <filesystem>
#include <map>
#include <string_view>

#include "owner/cold.hpp"

namespace warmfork {
namespace {

namespace fs = std::filesystem;

/// Variables that start-up reads before any code of the child's own can change them back: the
/// loader, malloc, the locale, thread pools. A trailing '*' stands for any rest.
constexpr std::array kStartUpVariables{std::string_view("LD_*"),
                                       std::string_view("MALLOC_*"),
                                       std::string_view("GLIBC_TUNABLES"),
                                       std::string_view("LANG"),
                                       std::string_view("LANGUAGE"),
                                       std::string_view("LC_*"),
                                       std::string_view("LOCPATH"),
                                       std::string_view("NLSPATH"),
                                       std::string_view("GCONV_PATH"),
                                       std::string_view("OMP_*"),
                                       std::string_view("OPENBLAS_*"),
                                       std::string_view("MKL_*"),
                                       std::string_view("GOTO_NUM_THREADS"),
                                       std::string_view("BLIS_*"),
                                       std::string_view("NUMEXPR_*")};

bool matches(std::string_view name, std::string_view pattern) {
    if (!pattern.ends_with('*')) return name == pattern;
    return name.starts_with(pattern.substr(0, pattern.size() - 1));
}

bool is_read_at_start_up(std::string_view name, bool is_python) {
    if (is_python && name.starts_with("PYTHON")) return true;
    return std::any_of(kStartUpVariables.begin(), kStartUpVariables.end(),
                       [&](std::string_view pattern) { return matches(name, pattern); });
}

using Variables = std::map<std::string_view, std::string_view>;

void add_start_up_variable(std::string_view variable, bool is_python, Variables& variables) {
    const std::size_t equals = variable.find('=');
    if (equals == std::string_view::npos) return;
    const std::string_view name = variable.substr(0, equals);
    // Of a name given twice the first counts, as for getenv.
    if (is_read_at_start_up(name, is_python)) variables.emplace(name, variable.substr(equals + 1));
}

std::string differing_variable(const Variables& one, const Variables& other) {
    for (const auto& [name, value] : one) {
        const auto found = other.find(name);
        if (found == other.end() || found->second != value) return std::string(name);
    }
    for (const auto& [name, value] : other)
        if (!one.count(name)) return std::string(name);
    return {};
}

std::string differing_start_up_variable(const TemplateTraits& traits,
                                        std::span<char* const> environment) {
    // Nearly always both are the owner's own environment, string by string.
    if (std::equal(environment.begin(), environment.end(), traits.environment.begin(),
                   traits.environment.end(),
                   [](const char* one, const std::string& other) { return other == one; }))
        return {};
    Variables of_child, of_template;
    for (const char* variable : environment)
        add_start_up_variable(variable, traits.is_python, of_child);
    for (const std::string& variable : traits.environment)
        add_start_up_variable(variable, traits.is_python, of_template);
    return differing_variable(of_child, of_template);
}

bool is_same_file(const std::string& one, const std::string& other) {
    struct stat status, other_status;
    return ::stat(one.c_str(), &status) == 0 && ::stat(other.c_str(), &other_status) == 0 &&
           status.st_dev == other_status.st_dev && status.st_ino == other_status.st_ino;
}

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

bool is_template_program(const TemplateTraits& traits, const std::string& path) {
    if (path == traits.program) return true;
    if (!is_same_file(path, traits.program)) return false;
    return !traits.is_python ||
           virtual_environment_of(path) == virtual_environment_of(traits.program);
}

/// What of `python3 …` a warm interpreter cannot honour; empty: nothing.
std::string command_line_obstacle(std::span<char* const> arguments) {
    if (arguments.size() < 2) return "an interactive interpreter is started cold";
    const std::string_view first = arguments[1];
    if (first == "-") return "a program from standard input is started cold";
    if (first == "-c" || first == "-m")
        return arguments.size() > 2 ? "" : std::string(first) + " has no argument";
    if (first == "--")
        return arguments.size() > 2 ? "" : "an interactive interpreter is started cold";
    if (first.starts_with('-') || first.empty())
        return "the interpreter's option " + std::string(first) + " is only read at its start";
    return {};
}

}  // namespace

std::string resolve_program(const std::string& program, std::span<char* const> environment) {
    for (const std::string& candidate : executable_candidates(program, environment)) {
        struct stat status;
        if (::access(candidate.c_str(), X_OK) < 0 || ::stat(candidate.c_str(), &status) < 0 ||
            !S_ISREG(status.st_mode))
            continue;
        std::error_code error;
        return candidate[0] == '/' ? candidate
                                   : fs::absolute(candidate, error).lexically_normal().string();
    }
    return {};
}

ColdReason find_cold_reason(const TemplateTraits& traits, const std::string& program,
                            std::span<char* const> arguments, std::span<char* const> environment,
                            std::span<const std::int32_t> descriptor_targets) {
    // Nothing to look up where the template's own path is given, as with sys.executable.
    const std::string path =
        program == traits.program ? program : resolve_program(program, environment);
    if (path.empty() || !is_template_program(traits, path))
        return {WARMFORK_REASON_PROGRAM,
                program + " is not the template's program, " + traits.program};
    if (traits.is_python)
        if (std::string obstacle = command_line_obstacle(arguments); !obstacle.empty())
            return {WARMFORK_REASON_COMMAND_LINE, obstacle};

    if (std::string name = differing_start_up_variable(traits, environment); !name.empty())
        return {WARMFORK_REASON_ENVIRONMENT,
                name + " is read at start-up and differs from the template's"};

    for (int number : traits.image_descriptors)
        if (std::find(descriptor_targets.begin(), descriptor_targets.end(), number) !=
            descriptor_targets.end())
            return {WARMFORK_REASON_DESCRIPTORS,
                    "descriptor " + std::to_string(number) + " is in use by a preloaded module"};
    return {};
}

}  // namespace warmfork
