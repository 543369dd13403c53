#include <fmt/format.h>
#include <unistd.h>

#include <cerrno>
#include <cstring>

#include "cli/commands.hpp"

namespace warmfork::cli {

int show_log(const LogOptions& options) {
    std::vector<std::string> words{"journalctl", "SYSLOG_IDENTIFIER=warmforkd"};
    if (::geteuid() != 0) words.push_back("--user");
    if (!options.name.empty()) words.push_back("WARMFORK_TEMPLATE=" + options.name);
    if (options.follow) words.push_back("--follow");
    words.insert(words.end(), options.rest.begin(), options.rest.end());
    std::vector<char*> arguments;
    for (std::string& word : words) arguments.push_back(word.data());
    arguments.push_back(nullptr);
    ::execvp(arguments[0], arguments.data());
    if (errno == ENOENT)
        fmt::print(stderr,
                   "warmfork: there is no journalctl here, and the service's log is in systemd's "
                   "journal. Started by hand (warmforkd --verbose) it logs to standard error\n");
    else
        fmt::print(stderr, "warmfork: cannot start journalctl: {}\n", std::strerror(errno));
    return 1;
}

}  // namespace warmfork::cli
