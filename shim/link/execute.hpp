// Becoming the real program. Nothing here allocates or takes a lock.
#pragma once

namespace warmfork::link {

/// Replaces this process by the program in the file `path` with the arguments as they are, as
/// execvp does: what has no format that the kernel knows is a script of /bin/sh. One thing is
/// changed: an interpreter of Python finds itself, and so its installation, through arguments[0];
/// where this leads to warmfork-exec the interpreter gets `path` for it. Returns errno.
[[nodiscard]] int execute(const char* path, char* const* arguments, char* const* environment);

/// Would the interpreter of Python in the file `path` take warmfork-exec for itself?
[[nodiscard]] bool misleads(const char* path, const char* first_argument, const char* search_path);

/// Says on standard error what a shell says of a program that cannot be executed, and returns the
/// status that it would end with: 127 or 126. `path` is the file, or the name where there is none.
[[nodiscard]] int report_failure(const char* path, bool is_found, int error_number);

}  // namespace warmfork::link
