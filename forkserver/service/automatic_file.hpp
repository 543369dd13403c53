// Where the service remembers which commands it has seen.
#pragma once

#include <string>
#include <string_view>

namespace warmfork::service {

/// The file of a service with this instance's name, which is empty for the user's own:
/// $XDG_STATE_HOME/warmfork/automatic.json. Empty: there is no place for it.
[[nodiscard]] std::string automatic_file(std::string_view instance);

/// All of a file of this user's. Returns 0 or errno; EPERM: it is not this user's alone, EFBIG: it
/// has more than a service writes.
[[nodiscard]] int read_own_file(const std::string& path, std::string& ret_text);

/// Puts the text in the place of what the file had, as a whole or not at all; makes the directory.
/// Returns 0 or errno.
[[nodiscard]] int replace_own_file(const std::string& path, std::string_view text);

}  // namespace warmfork::service
