// The command line of a Python template, as far as it stands behind the interpreter and its
// options. shim/python/warmfork/_in_template/_main.py reads it; README.md beside this file draws
// it.
#pragma once

#include <cstddef>
#include <string>
#include <vector>

namespace warmfork {

/// The program of `-c`. The directory of the package is on the path for its import only. What the
/// interpreter has loaded by itself is told apart from what preloading adds.
inline constexpr const char* kPythonBoot =
    "import sys; start = frozenset(sys.modules); "
    "sys.path[:sys.path[:1] == ['']] = [sys.argv[1]]; "
    "import warmfork._template; warmfork._template.main(start)";

struct PythonTemplateArguments {
    std::string package;                    ///< the directory that warmfork lies in
    std::string before_fork, in_child;      ///< hooks, "module:function"; empty: none
    bool learns = false;                    ///< children report what they import
    std::string program;                    ///< with learns: whose children these are
    std::vector<std::string> allowed;       ///< with learns: "directory:MODULE" of those that may
    std::vector<std::string> search_path;   ///< where modules are looked for first
    std::vector<std::string> modules = {};  ///< to be imported, in this order

    /// Returns "", or the words with newlines between them.
    [[nodiscard]] std::string learning() const {
        if (!learns) return {};
        std::string text = "learn=" + program;
        for (const std::string& entry : allowed) text += '\n' + entry;
        return text;
    }
    /// Returns which of the arguments is the number of search directories.
    std::size_t append_to(std::vector<std::string>& ret_arguments) const {
        ret_arguments.insert(ret_arguments.end(),
                             {"-c", kPythonBoot, package, before_fork, in_child, learning()});
        const std::size_t count_at = ret_arguments.size();
        ret_arguments.push_back(std::to_string(search_path.size()));
        ret_arguments.insert(ret_arguments.end(), search_path.begin(), search_path.end());
        ret_arguments.insert(ret_arguments.end(), modules.begin(), modules.end());
        return count_at;
    }
};

}  // namespace warmfork
