// What the daemon is told by files: its named templates, and what concerns itself.
//
// A configuration directory (/etc/warmfork) holds
//
//     warmforkd.toml                    the daemon
//     warmforkd.toml.d/NAME.conf        drop-ins for it (or NAME.toml)
//     templates.d/TEMPLATE.toml         the template TEMPLATE
//     templates.d/TEMPLATE.toml.d/NAME.conf
//
// There are several such directories, the later the more specific. As with systemd's units, a file
// replaces the one of the same name in an earlier directory wholly, and an empty one, or a link to
// /dev/null, masks it. Drop-ins of all directories are merged over it in the order of their names,
// whichever directory they lie in; a drop-in replaces, or masks, the one of the same name in an
// earlier directory. What a drop-in says replaces what was said before: values and lists as a
// whole, tables key by key. Hidden files and files with other endings are nobody's.
//
// All of this is plain data, read by whoever calls load(): nothing is cached, watched or started.
#pragma once

#include <functional>
#include <map>
#include <optional>
#include <string>
#include <vector>

#include "service/definitions.hpp"

namespace warmfork::service {

struct Configuration {
    /// It is nothing where the daemon's file has an error.
    std::optional<DaemonDefinition> daemon;
    /// The templates by name. One with an error is not among them, nor is one that extends such a
    /// one.
    std::map<std::string, LoadedTemplate, std::less<>> templates;
    /// The errors, in the order of files and lines.
    std::vector<ConfigurationError> errors;
};

/// Returns where a daemon looks, the most specific last: the vendor's directory
/// (/usr/lib/warmfork), /etc/warmfork and $XDG_CONFIG_HOME/warmfork or ~/.config/warmfork.
[[nodiscard]] std::vector<std::string> default_directories();

/// Returns $XDG_STATE_HOME or ~/.local/state, or an empty path where neither can be told.
[[nodiscard]] std::string state_home();

/// Reads everything that lies in these directories, the most specific last; one that does not exist
/// is empty. Blocks on the disk, and on the lookup of users. Whatever is wrong with a file is among
/// the errors and leaves the templates of other files alone. A file that another user than this one
/// and root owns or may write to, or could replace, is wrong.
[[nodiscard]] Configuration load(const std::vector<std::string>& directories);

/// Returns the definition as TOML, a key a line, each with a comment on where it was said. As a
/// file of the same name it would be read as the same definition.
[[nodiscard]] std::string show(const LoadedTemplate& loaded);

}  // namespace warmfork::service
