// Which programs are Python's: libwarmfork-exec.so is for these, and they have automatic templates.
// Nothing here allocates or takes a lock.
#pragma once

#include <climits>
#include <cstddef>

namespace warmfork::link {

/// Is it the name of an interpreter: "python3", "python3.13", "pypy3"?
[[nodiscard]] bool is_python_name(const char* name);

/// Is the file an interpreter of Python, by its name, or a script for one? It is not where it
/// cannot be executed, would have other rights than its caller (set-uid, set-gid), or is linked
/// statically: such a program would not have had this library either.
[[nodiscard]] bool is_python_program(const char* path);

/// How an interpreter comes to run a program.
struct PythonStart {
    static constexpr std::size_t kMostWords = 8;

    char interpreter[PATH_MAX];
    char line[257];                 ///< of a script: what `words` point into
    const char* words[kMostWords];  ///< of a script: what its line gives the interpreter
    std::size_t word_count;
    bool is_script;  ///< its path comes behind the words, and then the arguments of the command
};

/// Does the same, and finds which interpreter: the file itself, or what its `#!` line names; a name
/// for env(1) is looked up in `search_path`, the value of PATH or null, past links. Returns false
/// where it is no Python program, or this cannot tell.
[[nodiscard]] bool find_python_start(const char* path, const char* search_path,
                                     PythonStart& ret_start);

}  // namespace warmfork::link
