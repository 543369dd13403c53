// Which programs libwarmfork-exec.so is for. Nothing here allocates or takes a lock.
#pragma once

namespace warmfork::link {

/// The name of an interpreter: "python3", "python3.13", "pypy3".
[[nodiscard]] bool is_python_name(const char* name);

/// Is the file an interpreter of Python, by its name, or a script for one? Not where it cannot be
/// executed, would have other rights than its caller (set-uid, set-gid), or is linked statically:
/// such a program would not have had this library either.
[[nodiscard]] bool is_python_program(const char* path);

}  // namespace warmfork::link
