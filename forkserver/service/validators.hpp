// What texts in a configuration have to be.
#pragma once

#include <string_view>

namespace warmfork::service {

[[nodiscard]] bool is_not_empty(std::string_view text);
/// Is it a full path, or a name to be looked up in PATH? One relative to the daemon's directory
/// means nothing.
[[nodiscard]] bool is_program(std::string_view text);
[[nodiscard]] bool is_full_path(std::string_view text);
/// Is it without a slash?
[[nodiscard]] bool is_command_name(std::string_view text);
/// Is it a dotted name as Python has them? Letters of any alphabet are taken for such.
[[nodiscard]] bool is_module(std::string_view text);
/// Is it "module:function"?
[[nodiscard]] bool is_hook(std::string_view text);
/// Is it an exception from the gate, "thread:NAME" and the like?
[[nodiscard]] bool is_exception(std::string_view text);
/// Is it the name of a variable of the environment?
[[nodiscard]] bool is_variable(std::string_view name);

}  // namespace warmfork::service
