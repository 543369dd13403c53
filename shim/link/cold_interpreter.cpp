#include "link/cold_interpreter.hpp"

#include <cstdlib>

namespace warmfork::link {
namespace {

/// `argument` begins with a single '-'. `ret_goes_on`: options may follow.
bool has_cold_letter(std::string_view argument, const char* next, bool& ret_takes_next,
                     bool& ret_goes_on) {
    ret_takes_next = false;
    for (std::size_t at = 1; at < argument.size(); ++at) {
        const char letter = argument[at];
        ret_goes_on = letter != 'c' && letter != 'm';
        if (!ret_goes_on) return false;
        if (letter == 'W' || letter == 'X') {
            std::string_view value = argument.substr(at + 1);
            ret_takes_next = value.empty();
            if (ret_takes_next) value = next ? next : "";
            return letter == 'X' && is_cold_extension(value.substr(0, value.find('=')));
        }
        if (kShapingLetters.find(letter) == std::string_view::npos) return true;
    }
    return false;
}

bool has_cold_option(char* const* arguments) {
    bool goes_on = true, takes_next = false;
    for (std::size_t i = 1; goes_on && arguments[i]; i += takes_next && arguments[i + 1] ? 2 : 1) {
        const std::string_view argument = arguments[i];
        if (argument.size() < 2 || argument[0] != '-' || argument == "--") return false;
        if (argument[1] == '-' || has_cold_letter(argument, arguments[i + 1], takes_next, goes_on))
            return true;
    }
    return false;
}

}  // namespace

bool is_cold_extension(std::string_view name) {
    for (const std::string_view known : kColdExtensions)
        if (name == known) return true;
    return false;
}

bool is_plainly_cold(bool is_interpreter, char* const* arguments) {
    for (const char* name : kColdVariables)
        if (const char* value = std::getenv(name); value && *value) return true;
    return is_interpreter && arguments[0] && has_cold_option(arguments);
}

}  // namespace warmfork::link
