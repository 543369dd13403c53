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
    /// Index of the argument that names the program; text and module: of the option before it,
    /// where sys.argv begins. Standard input: of "-", or the number of arguments.
    std::size_t program = 0;
    /// The text or the module's name; a script's path.
    std::string operand;
    /// Why only a cold interpreter can run it; empty: a warm one can.
    std::string obstacle;

    /// Does it run without the user's own paths and the program's directory on the import path?
    [[nodiscard]] bool is_isolated() const;
    /// -I or -E: PYTHON* variables do not count.
    [[nodiscard]] bool ignores_environment() const;
    /// -I or -P: the program's directory is not put on the import path.
    [[nodiscard]] bool has_safe_path() const;

  private:
    [[nodiscard]] bool has_one_of(std::string_view letters) const;
};

/// `arguments`: with the interpreter's own name in front.
[[nodiscard]] PythonCommand parse_python_command(std::span<char* const> arguments);

}  // namespace warmfork
