#include "support/leak_guard.hpp"

#include <fmt/format.h>
#include <sys/wait.h>
#include <unistd.h>

#include <filesystem>
#include <fstream>

#include "support/processes.hpp"

namespace {

int leaks = 0;

std::map<int, std::string> open_descriptors() {
    std::map<int, std::string> found;
    std::error_code error;
    for (const auto& entry : std::filesystem::directory_iterator("/proc/self/fd", error)) {
        const std::string target = std::filesystem::read_symlink(entry.path(), error).string();
        // Of this very listing, and those that the shim keeps for the life of the process.
        const bool is_kept = target.empty() || target.starts_with("/proc/");
        if (!is_kept) found[std::stoi(entry.path().filename().string())] = target;
    }
    return found;
}

bool maps_channel() {
    std::ifstream maps("/proc/self/maps");
    for (std::string line; std::getline(maps, line);)
        if (line.find("warmfork-channel") != std::string::npos) return true;
    return false;
}

void complain(const std::string& test, const std::string& what) {
    fmt::print(stderr, "LEAK in \"{}\": {}\n", test, what);
    ++leaks;
}

}  // namespace

void LeakGuard::start() {
    descriptors_ = open_descriptors();
}

void LeakGuard::finish(const std::string& test) {
    for (const auto& [number, target] : open_descriptors())
        // The keeper's socket stays for the life of the process: the first cold child opens it.
        if (!descriptors_.count(number) && !is_keeper_socket(number))
            complain(test, fmt::format("descriptor {} ({})", number, target));
    for (int child : children_of(::getpid()))
        complain(test, fmt::format("child {} ({})", child, name_of(child)));
    if (maps_channel()) complain(test, "the mapping of a channel");
}

int LeakGuard::failures() {
    return leaks;
}
