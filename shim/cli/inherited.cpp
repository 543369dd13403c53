#include "cli/inherited.hpp"

#include <dirent.h>
#include <fcntl.h>
#include <fmt/format.h>
#include <unistd.h>

#include <algorithm>
#include <cstdlib>
#include <memory>

#include "cli/commands.hpp"

namespace warmfork::cli {

InheritedDescriptors::InheritedDescriptors() {
    const std::unique_ptr<DIR, int (*)(DIR*)> directory(::opendir("/proc/self/fd"), ::closedir);
    if (!directory)
        throw own_error(WARMFORK_STAGE_DESCRIPTORS, errno,
                        "cannot see in /proc/self/fd which descriptors the command is to have");
    while (const dirent* entry = ::readdir(directory.get())) {
        const int number = std::atoi(entry->d_name);
        if (number <= STDERR_FILENO) continue;  // also "." and ".."
        const int flags = ::fcntl(number, F_GETFD);
        if (flags >= 0 && !(flags & FD_CLOEXEC)) pairs_.push_back({number, number});
    }
}

bool InheritedDescriptors::has_terminal() const {
    return std::ranges::any_of(
        pairs_, [](const warmfork_descriptor& pair) { return ::isatty(pair.source) == 1; });
}

void InheritedDescriptors::leave_to_child() {
    for (const warmfork_descriptor& pair : pairs_) ::close(pair.source);
    pairs_.clear();
    const int null = ::open("/dev/null", O_RDWR | O_CLOEXEC);
    if (null < 0) return;  // they are closed when this process ends
    // Nothing else can have these numbers: see hold_standard_numbers.
    ::dup2(null, STDIN_FILENO);
    ::dup2(null, STDOUT_FILENO);
    ::close(null);
}

std::string variable_with_own_pid() {
    const std::string own = fmt::format("{}", ::getpid());
    for (const char* name : {"LISTEN_PID", "WATCHDOG_PID"}) {
        const char* value = std::getenv(name);
        if (value && value == own) return name;
    }
    return "";
}

}  // namespace warmfork::cli
