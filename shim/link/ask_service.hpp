// Asking the service whether a command would be warm. Nothing here allocates or takes a lock.
#pragma once

#include <cstddef>

namespace warmfork::link {

/// Room for the name of a template, which has at most 64 characters.
inline constexpr std::size_t kTemplateNameSize = 65;

/// Finds the template that the user's service has for a command, by the command's name, or by what
/// it runs: the file `path`, with these arguments (the first is its name). Returns false where it
/// has none, there is no service, or it does not answer at once. Starts no service.
[[nodiscard]] bool find_template(const char* command, const char* path, char* const* arguments,
                                 char (&ret_name)[kTemplateNameSize]);

}  // namespace warmfork::link
