// What a template is started as.
#pragma once

#include <cstdint>
#include <optional>
#include <string>
#include <vector>

namespace warmfork {

/// What to start. Strings are owned: a template is started again when it has ended.
struct LaunchPlan {
    std::vector<std::string> arguments;
    std::optional<std::vector<std::string>> environment;  ///< nothing: the owner's of the moment
    std::string directory;                                ///< empty: the owner's
    std::uint32_t spares_least = 1, spares_most = 8;
    std::vector<std::string> allowed;
    bool is_python = false;
    std::size_t path_at = 0;  ///< Python: which argument is the number of search directories
    bool nested = false;      ///< each child keeps a twin of the template
    bool is_shared = false;   ///< its freshness is shown to other processes
};

}  // namespace warmfork
