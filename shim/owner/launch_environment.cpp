#include "owner/launch_environment.hpp"

#include "protocol/messages.hpp"

namespace warmfork {
namespace {

constexpr std::string_view kPreload = "LD_PRELOAD=";

}  // namespace

std::vector<std::string> with_launch(std::vector<std::string> environment,
                                     const std::string& preload_library) {
    std::string preload = std::string(kPreload) + preload_library;
    std::erase_if(environment, [&](const std::string& variable) {
        if (!variable.starts_with(kPreload)) return false;
        if (variable.size() > kPreload.size()) preload += ":" + variable.substr(kPreload.size());
        return true;
    });
    environment.push_back(preload);
    environment.push_back(std::string(kChannelVariable) + "=" + std::to_string(kChannelNumber));
    return environment;
}

std::vector<std::string> without_launch(std::vector<std::string> environment,
                                        const std::string& preload_library) {
    const std::string preload = std::string(kPreload) + preload_library;
    std::erase_if(environment, [&](const std::string& variable) {
        return variable == preload || variable.starts_with(std::string(kChannelVariable) + "=");
    });
    for (std::string& variable : environment)
        if (variable.starts_with(preload + ":"))
            variable.erase(kPreload.size(), preload.size() + 1 - kPreload.size());
    return environment;
}

}  // namespace warmfork
