// Where the service remembers which commands it has seen.
#pragma once

#include <string>
#include <string_view>

namespace warmfork::service {

/// Returns the file of a service with this instance's name, which is empty for the user's own:
/// $XDG_STATE_HOME/warmfork/automatic.json. Returns an empty path where there is no place for it.
[[nodiscard]] std::string automatic_file(std::string_view instance);

/// Reads all of a file that is this user's. Returns 0 or errno: EPERM (it is not this user's
/// alone), EFBIG (it has more than a service writes).
[[nodiscard]] int read_own_file(const std::string& path, std::string& ret_text);

/// Replaces what the file had by the text, as a whole or not at all. Makes the directory. Returns 0
/// or errno.
[[nodiscard]] int replace_own_file(const std::string& path, std::string_view text);

}  // namespace warmfork::service
