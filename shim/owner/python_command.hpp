// `python3 [options] [script | -c text | -m module | -]` taken apart as the interpreter does it.
#pragma once

#include <cstddef>
#include <span>
#include <string>
#include <string_view>
#include <vector>

namespace warmfork {

struct PythonCommand {
    enum class Kind { script, text, module, standard_input };

    /// What shapes the interpreter itself, one option a string ("-O", "-Xdev", "-Werror"), in
    /// order.
    std::vector<std::string> options;
    Kind kind = Kind::standard_input;
    /// Index of the argument that names the program. For a text and a module it is that of the
    /// option before it, where sys.argv begins; for standard input that of "-", or the number of
    /// arguments.
    std::size_t program = 0;
    /// The text, the module's name, or the script's path.
    std::string operand;
    /// Why only a cold interpreter can run it. It is empty where a warm one can.
    std::string obstacle;

    /// Does it run without the user's own paths and the program's directory on the import path?
    [[nodiscard]] bool is_isolated() const;
    /// Do PYTHON* variables not count (-I or -E)?
    [[nodiscard]] bool ignores_environment() const;
    /// Is the program's directory kept off the import path (-I or -P)?
    [[nodiscard]] bool has_safe_path() const;

  private:
    [[nodiscard]] bool has_one_of(std::string_view letters) const;
};

/// Takes a command line apart; `arguments` have the interpreter's own name in front.
[[nodiscard]] PythonCommand parse_python_command(std::span<char* const> arguments);

}  // namespace warmfork
