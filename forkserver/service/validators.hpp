// What texts in a configuration have to be.
#pragma once

#include <string_view>

namespace warmfork::service {

[[nodiscard]] bool is_not_empty(std::string_view text);
/// A full path, or a name to be looked up in PATH: one relative to the daemon's directory means
/// nothing.
[[nodiscard]] bool is_program(std::string_view text);
[[nodiscard]] bool is_full_path(std::string_view text);
/// Without a slash.
[[nodiscard]] bool is_command_name(std::string_view text);
/// Dotted names as Python's: letters of any alphabet are taken for such.
[[nodiscard]] bool is_module(std::string_view text);
/// "module:function".
[[nodiscard]] bool is_hook(std::string_view text);
/// From the gate: "thread:NAME" and the like.
[[nodiscard]] bool is_exception(std::string_view text);
/// The name of one of the environment.
[[nodiscard]] bool is_variable(std::string_view name);

}  // namespace warmfork::service
