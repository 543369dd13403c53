#include "service/definitions.hpp"

#include <fmt/format.h>

namespace warmfork::service {

std::string to_string(const Position& position) {
    if (position.line == 0) return position.file;
    return fmt::format("{}:{}:{}", position.file, position.line, position.column);
}

std::string to_string(const ConfigurationError& error) {
    return to_string(error.where) + ": " + error.text;
}

ClientLimits ClientLimitOverrides::over(const ClientLimits& defaults) const {
    return {children.value_or(defaults.children),
            spawns_per_second.value_or(defaults.spawns_per_second),
            record_bytes.value_or(defaults.record_bytes)};
}

}  // namespace warmfork::service
