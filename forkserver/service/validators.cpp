#include "service/validators.hpp"

#include <algorithm>
#include <array>

namespace warmfork::service {

bool is_not_empty(std::string_view text) {
    return !text.empty();
}

bool is_program(std::string_view text) {
    return text.starts_with('/') || (!text.empty() && text.find('/') == std::string_view::npos);
}

bool is_full_path(std::string_view text) {
    return text.starts_with('/');
}

bool is_command_name(std::string_view text) {
    return !text.empty() && text.find('/') == std::string_view::npos;
}

bool is_module(std::string_view text) {
    bool is_first = true;  // of a part
    for (const char c : text) {
        const bool is_letter =
            (c >= 'a' && c <= 'z') || (c >= 'A' && c <= 'Z') || c == '_' || (c & 0x80);
        if (is_first ? !is_letter : !(is_letter || c == '.' || (c >= '0' && c <= '9')))
            return false;
        is_first = c == '.';
    }
    return !is_first;
}

bool is_hook(std::string_view text) {
    const std::size_t colon = text.find(':');
    return colon != std::string_view::npos && is_module(text.substr(0, colon)) &&
           is_module(text.substr(colon + 1)) && text.find('.', colon) == std::string_view::npos;
}

bool is_exception(std::string_view text) {
    return std::ranges::any_of(
        std::array<std::string_view, 7>{
            "thread:", "descriptor:", "mapping:", "identity:", "output:", "program:", "directory:"},
        [&](std::string_view kind) { return text.starts_with(kind) && text.size() > kind.size(); });
}

bool is_variable(std::string_view name) {
    return !name.empty() && name.find('=') == std::string_view::npos &&
           name.find('\0') == std::string_view::npos;
}

}  // namespace warmfork::service
