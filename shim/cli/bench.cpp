#include <fmt/format.h>
#include <unistd.h>

#include <cstdlib>
#include <cstring>
#include <filesystem>

#include "cli/commands.hpp"
#include "owner/companions.hpp"
#include "warmfork.hpp"

namespace warmfork::cli {

int start_python(const std::vector<std::string>& program, std::vector<std::string> arguments) {
    std::string python = "python3";
    if (arguments.size() >= 2 && arguments[0] == "--python") {
        python = arguments[1];
        arguments.erase(arguments.begin(), arguments.begin() + 2);
    }
    const std::string path = find_python_path();
    if (path.empty()) {
        fmt::print(stderr,
                   "warmfork: cannot find the Python package of warmfork: is python3-warmfork "
                   "installed?\n");
        return 1;
    }
    std::vector<std::string> command{python};
    for (const std::string& word : program)
        command.push_back(word.starts_with('/') ? path + word : word);
    command.insert(command.end(), arguments.begin(), arguments.end());
    const char* inherited = std::getenv("PYTHONPATH");
    ::setenv("PYTHONPATH", inherited ? (path + ":" + inherited).c_str() : path.c_str(), 1);
    // This is for `bench service`, which measures this program too.
    std::error_code unknown;
    const std::string self = std::filesystem::read_symlink("/proc/self/exe", unknown);
    if (!self.empty()) ::setenv("WARMFORK_CLI", self.c_str(), 0);
    const auto pointers = detail::pointers(command);
    ::execvp(python.c_str(), const_cast<char* const*>(pointers.data()));
    fmt::print(stderr, "warmfork: cannot execute {}: {}\n", python, std::strerror(errno));
    return 1;
}

}  // namespace warmfork::cli
