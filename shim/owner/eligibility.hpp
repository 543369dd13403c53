// Can a request be served warm at all? This is what depends on the request and on the template's
// definition alone.
#pragma once

#include <span>
#include <string>
#include <vector>

#include "owner/python_command.hpp"
#include "warmfork.h"

namespace warmfork {

/// Why it must be cold. With reason NONE warm is fine.
struct ColdReason {
    warmfork_reason reason = WARMFORK_REASON_NONE;
    std::string text;
    explicit operator bool() const { return reason != WARMFORK_REASON_NONE; }
};

/// Is it the template's program, looked up in the child's PATH? `arguments`, `environment` and
/// `directory` are the child's. An interpreter has to be so by its first argument as well, from
/// which it finds its installation.
[[nodiscard]] ColdReason find_program_reason(bool is_python, const std::string& template_program,
                                             const std::string& program,
                                             std::span<char* const> arguments,
                                             std::span<char* const> environment,
                                             const std::string& directory);

/// Finds what of a Python command line only a cold interpreter can do, `command.obstacle` apart.
/// `standard_streams` are the owner's descriptors for 0, 1 and 2, or -1.
[[nodiscard]] ColdReason find_python_reason(const PythonCommand& command,
                                            std::span<char* const> environment,
                                            std::span<const int, 3> standard_streams);

/// Returns the entries of PYTHONPATH.
[[nodiscard]] std::vector<std::string> python_path_of(std::span<char* const> environment);

/// Does the import path depend on the directory that the interpreter is started in?
[[nodiscard]] bool has_relative_path(const PythonCommand& command,
                                     std::span<char* const> environment);

[[nodiscard]] bool is_same_file(const std::string& one, const std::string& other);

/// May this process execute the file? Whether it is a program is not asked.
[[nodiscard]] bool is_executable(const std::string& path);

/// Returns the file that execvp would run, started in `directory`, by the name that exec gets then;
/// empty if there is none. Links in place of commands are passed over: the real command counts.
[[nodiscard]] std::string find_executable(const std::string& program,
                                          std::span<char* const> environment,
                                          const std::string& directory);

/// Does the same in this process's own directory. Returns a full path.
[[nodiscard]] std::string resolve_program(const std::string& program,
                                          std::span<char* const> environment);

}  // namespace warmfork
