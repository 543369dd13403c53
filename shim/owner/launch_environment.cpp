#include "owner/launch_environment.hpp"

#include <unistd.h>

#include <array>
#include <cerrno>
#include <charconv>
#include <cstdlib>

#include "child/proc_entries.hpp"

#include "protocol/messages.hpp"
#include "template/serve.hpp"

namespace warmfork {
namespace {

constexpr std::string_view kPreload = "LD_PRELOAD=";
// The most processes between a launch and the program: a wrapper, the loader of a frozen program.
constexpr int kMostGenerations = 16;

bool is_launcher(const std::string& variable) {
    return variable.starts_with(std::string(kLaunchVariable) + "=");
}

/// Returns the parent of a process, or 0 where it is not known.
pid_t parent_of(pid_t pid) {
    std::array<char, 512> buffer;
    const std::string_view stat = read_line(NumberedPath("/proc/", pid, "/stat").get(), buffer);
    const std::size_t name_end = stat.rfind(')');  // behind it: state, parent
    if (name_end == std::string_view::npos || name_end + 4 >= stat.size()) return 0;
    pid_t parent = 0;
    std::from_chars(stat.data() + name_end + 4, stat.data() + stat.size(), parent);
    return parent;
}

bool descends_from(pid_t ancestor) {
    pid_t pid = ::getppid();
    for (int i = 0; i < kMostGenerations && pid > 0; ++i, pid = parent_of(pid))
        if (pid == ancestor) return true;
    return false;
}

}  // namespace

Outcome find_own_launch() {
    if (is_launched_as_template())
        return Failure{
            Stage::launch, ELOOP, 0,
            "this process was started as a template, and is not one yet: a template cannot "
            "be opened while another one preloads"};
    const char* launcher = std::getenv(kLaunchVariable);
    const pid_t pid = launcher ? std::atoi(launcher) : 0;
    if (pid <= 0 || !descends_from(pid)) return {};
    return Failure{
        Stage::launch, ELOOP, 0,
        "process " + std::to_string(pid) +
            " has started this program as its template, and it is none: a frozen program, "
            "a wrapper or one that embeds Python is no interpreter. Name one "
            "(Template(python=...); the default is sys.executable)"};
}

std::vector<std::string> with_launch(std::vector<std::string> environment,
                                     const std::string& preload_library) {
    std::string preload = std::string(kPreload) + preload_library;
    std::erase_if(environment, is_launcher);
    std::erase_if(environment, [&](const std::string& variable) {
        if (!variable.starts_with(kPreload)) return false;
        if (variable.size() > kPreload.size()) preload += ":" + variable.substr(kPreload.size());
        return true;
    });
    environment.push_back(preload);
    environment.push_back(std::string(kChannelVariable) + "=" + std::to_string(kChannelNumber));
    environment.push_back(std::string(kLaunchVariable) + "=" + std::to_string(::getpid()));
    return environment;
}

std::vector<std::string> without_launch(std::vector<std::string> environment,
                                        const std::string& preload_library) {
    const std::string preload = std::string(kPreload) + preload_library;
    std::erase_if(environment, is_launcher);
    std::erase_if(environment, [&](const std::string& variable) {
        return variable == preload || variable.starts_with(std::string(kChannelVariable) + "=");
    });
    for (std::string& variable : environment)
        if (variable.starts_with(preload + ":"))
            variable.erase(kPreload.size(), preload.size() + 1 - kPreload.size());
    return environment;
}

}  // namespace warmfork
