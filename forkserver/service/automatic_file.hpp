// Where the service remembers which commands it has seen.
#pragma once

#include <string>
#include <string_view>

namespace warmfork::service {

/// Returns the file of a service with this instance's name, which is empty for the user's own:
/// $XDG_STATE_HOME/warmfork/automatic.json. Returns an empty path where there is no place for it.
[[nodiscard]] std::string automatic_file(std::string_view instance);

/// Reads all of such a file; one that is not there is empty. Returns an empty text, or why it
/// cannot be read: this user and root are not the only ones who decide on it, or it has more than a
/// service writes.
[[nodiscard]] std::string read_automatic_file(const std::string& path, std::string& ret_text);

/// Replaces what the file had by the text, as a whole or not at all. Makes the directory; where
/// others decide on that, nothing is written. Returns an empty text, or why it cannot be written.
[[nodiscard]] std::string replace_own_file(const std::string& path, std::string_view text);

}  // namespace warmfork::service
