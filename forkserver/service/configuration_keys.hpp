// The keys of a template's file and of the daemon's.
#pragma once

#include "service/configuration_values.hpp"
#include "service/definitions.hpp"

namespace warmfork::service {

struct PrintedKey {
    std::string name, value;  ///< as TOML, the name dotted
    bool is_default = false;  ///< says nothing, unless files say it
};
using PrintedKeys = std::vector<PrintedKey>;

/// Applies what a file says. Errors are added to those of `reading`; what is wrong is not applied.
void apply(const toml::table& table, Reading& reading, TemplateDefinition& definition);
void apply(const toml::table& table, Reading& reading, DaemonDefinition& definition);

/// Settles, after the last file, defaults that depend on other keys, and adds errors for keys that
/// contradict each other.
void settle(Reading& reading, TemplateDefinition& definition);

/// Gives a layer what it has from its base, with the origins. A fixed key that it says otherwise is
/// an error.
void inherit(const LoadedTemplate& base, Reading& reading, TemplateDefinition& layer);

/// Returns all keys of a definition, in the order of the manual.
[[nodiscard]] PrintedKeys print(const TemplateDefinition& definition);

}  // namespace warmfork::service
