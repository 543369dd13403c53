// Command lines of Python, taken apart as the interpreter does it, and lines of scripts, as the
// kernel and env do.
#include <string>
#include <vector>

#include "fuzz_input.hpp"
#include "owner/python_command.hpp"
#include "owner/script_line.hpp"

using namespace warmfork;

extern "C" int LLVMFuzzerTestOneInput(const std::uint8_t* data, std::size_t size) {
    // Arguments, with a NUL between them, behind the interpreter's own name.
    std::string text(fuzz::text_of(fuzz::Input(data, size).rest()));
    const auto line = parse_script_line(std::string_view(text).substr(0, kScriptLineSize));
    if (line) {
        fuzz::require(line->interpreter.starts_with('/'), "an interpreter has its full path");
        fuzz::require(!line->argument || !line->argument->empty(), "no argument is empty");
    }
    std::vector<std::string> strings{"python3"};
    for (std::size_t at = 0; at < text.size();) {
        const std::size_t end = std::min(text.find('\0', at), text.size());
        strings.push_back(text.substr(at, end - at));
        at = end + 1;
    }
    std::vector<char*> arguments;
    for (std::string& string : strings) arguments.push_back(string.data());

    const std::vector<std::string> started = skip_env(strings);
    fuzz::require(started.empty() || started.front().find('=') == std::string::npos,
                  "what env starts is a program");

    const PythonCommand command = parse_python_command(arguments);
    if (command.obstacle.empty()) {
        fuzz::require(command.program >= 1 && command.program <= arguments.size(),
                      "the program is one of the arguments, or behind the last one");
        if (command.kind == PythonCommand::Kind::script)
            fuzz::require(
                command.program < arguments.size() && command.operand == arguments[command.program],
                "a script is what its argument says");
    }
    for (const std::string& option : command.options)
        fuzz::require(option.size() >= 2 && option[0] == '-', "an option begins with a dash");
    fuzz::require(!command.is_isolated() || !command.options.empty(),
                  "only an option makes an interpreter isolated");
    return 0;
}
