// Can a request be served warm at all? What depends on the request and on the template's definition
// alone.
#pragma once

#include <span>
#include <string>
#include <vector>

#include "owner/python_command.hpp"
#include "warmfork.h"

namespace warmfork {

/// Why it must be cold; reason NONE: warm is fine.
struct ColdReason {
    warmfork_reason reason = WARMFORK_REASON_NONE;
    std::string text;
    explicit operator bool() const { return reason != WARMFORK_REASON_NONE; }
};

/// Is it the template's program, looked up in the child's PATH? `arguments`, `environment` and
/// `directory`: the child's. An interpreter has to be so by its first argument as well, from which
/// it finds its installation.
[[nodiscard]] ColdReason find_program_reason(bool is_python, const std::string& template_program,
                                             const std::string& program,
                                             std::span<char* const> arguments,
                                             std::span<char* const> environment,
                                             const std::string& directory);

/// What of a Python command line only a cold interpreter can do, `command.obstacle` apart.
/// `standard_streams`: the owner's descriptors for 0, 1 and 2, or -1.
[[nodiscard]] ColdReason find_python_reason(const PythonCommand& command,
                                            std::span<char* const> environment,
                                            std::span<const int, 3> standard_streams);

/// The entries of PYTHONPATH.
[[nodiscard]] std::vector<std::string> python_path_of(std::span<char* const> environment);

/// Does the import path depend on the directory that the interpreter is started in?
[[nodiscard]] bool has_relative_path(const PythonCommand& command,
                                     std::span<char* const> environment);

[[nodiscard]] bool is_same_file(const std::string& one, const std::string& other);

/// May this process execute the file? Whether it is a program is not asked.
[[nodiscard]] bool is_executable(const std::string& path);

/// The file that execvp would run, started in `directory`, by the name that exec gets then; empty
/// if there is none. Links in place of commands are looked past: their real one is what counts.
[[nodiscard]] std::string find_executable(const std::string& program,
                                          std::span<char* const> environment,
                                          const std::string& directory);

/// Returns this process's own directory in the same way, as a full path.
[[nodiscard]] std::string resolve_program(const std::string& program,
                                          std::span<char* const> environment);

}  // namespace warmfork
