#include "owner/python_command.hpp"

#include <algorithm>
#include <cstring>
#include <string_view>

#include "link/cold_interpreter.hpp"

namespace warmfork {
namespace {

constexpr std::string_view kValueLetters = "WX";

bool is_cold_extension(std::string_view value) {
    const std::string_view name = value.substr(0, value.find('='));
    // A relative prefix depends on the directory, also for what the interpreter itself imports.
    if (name == "pycache_prefix" && !value.starts_with("pycache_prefix=/")) return true;
    return link::is_cold_extension(name);
}

/// Walks over the arguments as getopt does.
class Parser {
  public:
    explicit Parser(std::span<char* const> arguments) : arguments_(arguments) {}

    PythonCommand parse() {
        while (!is_done_ && next_ < arguments_.size()) take_argument();
        if (!is_done_) end_options();
        return command_;
    }

  private:
    void take_argument() {
        const std::string_view argument = arguments_[next_];
        if (argument == "-" || !argument.starts_with('-')) return end_options();
        if (argument == "--") {
            ++next_;
            return end_options();
        }
        if (argument.starts_with("--")) return refuse(argument);
        ++next_;
        for (std::size_t at = 1; at < argument.size() && !is_done_; ++at)
            if (take_letter(argument, at)) return;
    }

    /// Takes one letter. Returns true where the rest of the argument was the option's value.
    bool take_letter(std::string_view argument, std::size_t at) {
        const char letter = argument[at];
        if (letter == 'c' || letter == 'm') {
            take_program(letter, argument, at);
            return true;
        }
        const std::string option{'-', letter};
        if (kValueLetters.find(letter) != std::string_view::npos) {
            std::string value;
            if (!take_value(argument, at, value))
                refuse(option);
            else if (letter == 'X' && is_cold_extension(value))
                refuse(option + " " + value);
            else
                command_.options.push_back(option + value);
            return true;
        }
        if (link::kShapingLetters.find(letter) == std::string_view::npos)
            refuse(option);
        else
            command_.options.push_back(option);
        return false;
    }

    bool take_value(std::string_view argument, std::size_t at, std::string& ret_value) {
        if (at + 1 < argument.size()) {
            ret_value = argument.substr(at + 1);
            return true;
        }
        if (next_ >= arguments_.size()) return false;
        ret_value = arguments_[next_++];
        return true;
    }

    void take_program(char letter, std::string_view argument, std::size_t at) {
        is_done_ = true;
        command_.kind = letter == 'c' ? PythonCommand::Kind::text : PythonCommand::Kind::module;
        if (!take_value(argument, at, command_.operand))
            command_.obstacle = std::string{'-', letter} + " has no argument";
        command_.program = next_ - 1;
    }

    void end_options() {
        is_done_ = true;
        command_.program = next_;
        if (next_ >= arguments_.size() || std::strcmp(arguments_[next_], "-") == 0) return;
        command_.kind = PythonCommand::Kind::script;
        command_.operand = arguments_[next_];
        if (command_.operand.empty()) command_.obstacle = "a script without a name is started cold";
    }

    void refuse(std::string_view option) {
        is_done_ = true;
        command_.obstacle =
            "the option " + std::string(option) + " is honoured by a cold interpreter only";
    }

    std::span<char* const> arguments_;
    std::size_t next_ = 1;
    bool is_done_ = false;
    PythonCommand command_;
};

}  // namespace

bool PythonCommand::has_one_of(std::string_view letters) const {
    return std::any_of(options.begin(), options.end(), [&](const std::string& option) {
        return option.size() == 2 && letters.find(option[1]) != std::string_view::npos;
    });
}

bool PythonCommand::is_isolated() const {
    return has_one_of("IEsSP");
}

bool PythonCommand::ignores_environment() const {
    return has_one_of("IE");
}

bool PythonCommand::has_safe_path() const {
    return has_one_of("IP");
}

PythonCommand parse_python_command(std::span<char* const> arguments) {
    return Parser(arguments).parse();
}

}  // namespace warmfork
