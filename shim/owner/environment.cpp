#include "owner/environment.hpp"

#include <unistd.h>

#include <algorithm>
#include <array>
#include <cstring>
#include <map>

namespace warmfork {
namespace {

/// A trailing '*' stands for any rest.
constexpr std::array kCounted{
    // libc and the loader read these, by calls of their own.
    std::string_view("HOME"), std::string_view("PATH"), std::string_view("TMPDIR"),
    std::string_view("TZ"), std::string_view("LANG"), std::string_view("LANGUAGE"),
    std::string_view("LC_*"), std::string_view("LOCPATH"), std::string_view("NLSPATH"),
    std::string_view("GCONV_PATH"), std::string_view("RES_OPTIONS"),
    std::string_view("LOCALDOMAIN"), std::string_view("HOSTALIASES"), std::string_view("LD_*"),
    std::string_view("GLIBC_TUNABLES"), std::string_view("MALLOC_*"),
    // Thread pools read these, from constructors.
    std::string_view("OMP_*"), std::string_view("OPENBLAS_*"), std::string_view("MKL_*"),
    std::string_view("GOTO_NUM_THREADS"), std::string_view("BLIS_*"),
    std::string_view("NUMEXPR_*")};

/// The interpreter reads these, and what .pth files run before anything can be recorded.
constexpr std::array kCountedByPython{
    std::string_view("PYTHON*"), std::string_view("SETUPTOOLS_USE_DISTUTILS"),
    std::string_view("COVERAGE_*"), std::string_view("COV_CORE_*")};

// breakpoint() asks for it each time, and debuggers set it while a program runs.
constexpr std::string_view kReadWhenUsed = "PYTHONBREAKPOINT";

bool matches(std::string_view name, std::string_view pattern) {
    if (!pattern.ends_with('*')) return name == pattern;
    return name.starts_with(pattern.substr(0, pattern.size() - 1));
}

using Variables = std::map<std::string_view, std::string_view>;

bool counts(std::string_view variable, const ReadVariables& read, bool is_python) {
    const std::string_view name = variable.substr(0, variable.find('='));
    return read.all || read.names.count(name) || always_counts(name, is_python);
}

void add_if_counted(std::string_view variable, const ReadVariables& read, bool is_python,
                    Variables& variables) {
    const std::size_t equals = variable.find('=');
    if (equals == std::string_view::npos || !counts(variable, read, is_python)) return;
    variables.emplace(variable.substr(0, equals), variable.substr(equals + 1));
}

}  // namespace

bool always_counts(std::string_view name, bool is_python) {
    const auto is_like = [&](std::string_view pattern) { return matches(name, pattern); };
    return std::any_of(kCounted.begin(), kCounted.end(), is_like) ||
           (is_python && name != kReadWhenUsed &&
            std::any_of(kCountedByPython.begin(), kCountedByPython.end(), is_like));
}

std::vector<std::string> image_environment(std::span<char* const> plain,
                                           std::span<char* const> wanted, const ReadVariables& read,
                                           bool is_python) {
    std::vector<std::string> environment;
    for (const char* variable : plain)
        if (!counts(variable, read, is_python)) environment.emplace_back(variable);
    for (const char* variable : wanted)
        if (counts(variable, read, is_python)) environment.emplace_back(variable);
    return environment;
}

bool is_same_environment(std::span<const std::string> one, std::span<char* const> other) {
    return std::equal(other.begin(), other.end(), one.begin(), one.end(),
                      [](const char* a, const std::string& b) { return b == a; });
}

std::string differing_variable(std::span<const std::string> started_with,
                               std::span<char* const> wanted, const ReadVariables& read,
                               bool is_python) {
    Variables of_image, of_child;
    for (const std::string& variable : started_with)
        add_if_counted(variable, read, is_python, of_image);
    for (const char* variable : wanted) add_if_counted(variable, read, is_python, of_child);
    for (const auto& [name, value] : of_image) {
        const auto found = of_child.find(name);
        if (found == of_child.end() || found->second != value) return std::string(name);
    }
    for (const auto& [name, value] : of_child)
        if (!of_image.count(name)) return std::string(name);
    return {};
}

const char* find_variable(std::span<char* const> environment, const char* name) {
    const std::size_t size = std::strlen(name);
    for (const char* variable : environment)
        if (std::strncmp(variable, name, size) == 0 && variable[size] == '=')
            return variable + size + 1;
    return nullptr;
}

std::vector<char*> variables_of(std::optional<std::vector<std::string>>& environment) {
    std::vector<char*> variables;
    if (environment)
        for (std::string& variable : *environment) variables.push_back(variable.data());
    else
        for (char** variable = environ; variable && *variable; ++variable)
            variables.push_back(*variable);
    return variables;
}

}  // namespace warmfork
