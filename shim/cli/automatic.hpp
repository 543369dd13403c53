// Templates that the service has made by itself: what `template list` shows of them, and what
// `template adopt` writes down.
#pragma once

#include <nlohmann/json.hpp>
#include <string>

namespace warmfork::cli {

/// Adds what each preloads to what the service says of its automatic templates: "modules" (null:
/// not known), "refused", "saves_seconds". It is read from the files that templates leave in the
/// folder `learned`; those that cannot be read are passed over.
void add_learned(nlohmann::json& automatic, const std::string& learned);

/// Prints a table of them.
void print_automatic(const nlohmann::json& automatic);

/// Returns one of them as a file of the configuration: its interpreter and options, what it
/// preloads, and where whoever adopts it has modules looked for.
[[nodiscard]] std::string adopted_text(const nlohmann::json& entry);

}  // namespace warmfork::cli
