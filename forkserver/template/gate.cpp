#include "template/gate.hpp"

#include <dirent.h>
#include <fmt/format.h>
#include <sys/socket.h>
#include <sys/stat.h>
#include <sys/sysmacros.h>
#include <unistd.h>

#include <algorithm>
#include <array>
#include <chrono>
#include <climits>
#include <cstdlib>
#include <fstream>
#include <thread>

#include "template/atfork.hpp"

namespace warmfork {
namespace {

// After pthread_join the kernel was seen to count the thread for up to 157 microseconds.
constexpr auto kThreadPatience = std::chrono::milliseconds(10);
constexpr auto kThreadInterval = std::chrono::microseconds(100);

/// The numbers that name the entries of a /proc directory, ascending.
std::vector<int> numbered_entries(const char* path) {
    std::vector<int> numbers;
    DIR* directory = ::opendir(path);
    if (!directory) return numbers;
    const int own = ::dirfd(directory);
    const bool lists_descriptors = std::string_view(path).ends_with("/fd");
    while (const dirent* entry = ::readdir(directory)) {
        char* end;
        const long number = std::strtol(entry->d_name, &end, 10);
        if (*end == '\0' && !(lists_descriptors && number == own))
            numbers.push_back(static_cast<int>(number));
    }
    ::closedir(directory);
    std::sort(numbers.begin(), numbers.end());
    return numbers;
}

/// The kernel counts the threads in the link count of this directory: one system call where the
/// answer is "one", which it nearly always is.
bool is_single_threaded() {
    struct stat status;
    return ::stat("/proc/self/task", &status) == 0 && status.st_nlink == 3;
}

bool is_harmless_device(const struct stat& status) {
    // Devices without state that children could share: null, zero, full, random, urandom.
    constexpr std::array<unsigned, 5> harmless{3, 5, 7, 8, 9};
    return S_ISCHR(status.st_mode) && major(status.st_rdev) == 1 &&
           std::find(harmless.begin(), harmless.end(), minor(status.st_rdev)) != harmless.end();
}

bool is_connected_socket(int number) {
    sockaddr_storage peer;
    socklen_t size = sizeof peer;
    return ::getpeername(number, reinterpret_cast<sockaddr*>(&peer), &size) == 0;
}

bool is_hazardous(int number, const std::string& target) {
    struct stat status;
    if (::fstat(number, &status) < 0) return false;
    if (S_ISSOCK(status.st_mode)) return is_connected_socket(number);
    if (S_ISCHR(status.st_mode) || S_ISBLK(status.st_mode)) return !is_harmless_device(status);
    return target == "anon_inode:[io_uring]";
}

std::vector<std::string> unexpected_threads(const AllowList& allowed) {
    std::vector<std::string> found;
    for (const ThreadFact& thread : list_threads())
        if (thread.id != ::gettid() && !allowed.thread(thread.name))
            found.push_back(fmt::format("{} (thread {})", thread.name, thread.id));
    return found;
}

}  // namespace

bool AllowList::thread(const std::string& name) const {
    return std::find(entries_.begin(), entries_.end(), "thread:" + name) != entries_.end();
}

bool AllowList::descriptor(const std::string& target) const {
    return std::any_of(entries_.begin(), entries_.end(), [&](const std::string& entry) {
        constexpr std::string_view kind = "descriptor:";
        return entry.starts_with(kind) &&
               target.starts_with(std::string_view(entry).substr(kind.size()));
    });
}

std::vector<ThreadFact> list_threads() {
    std::vector<ThreadFact> threads;
    for (int id : numbered_entries("/proc/self/task")) {
        std::ifstream file(fmt::format("/proc/self/task/{}/comm", id));
        std::string name;
        if (std::getline(file, name)) threads.push_back({id, name});
    }
    return threads;
}

std::vector<DescriptorFact> list_descriptors(const std::unordered_set<int>& own) {
    std::vector<DescriptorFact> descriptors;
    for (int number : numbered_entries("/proc/self/fd")) {
        if (own.count(number)) continue;
        char target[PATH_MAX];
        const ssize_t size =
            ::readlink(fmt::format("/proc/self/fd/{}", number).c_str(), target, sizeof target);
        if (size < 0) continue;
        std::string name(target, static_cast<std::size_t>(size));
        descriptors.push_back({number, name, is_hazardous(number, name)});
    }
    return descriptors;
}

std::string threads_in_the_way(const AllowList& allowed) {
    if (is_single_threaded()) return {};
    const auto deadline = std::chrono::steady_clock::now() + kThreadPatience;
    std::vector<std::string> found = unexpected_threads(allowed);
    while (!found.empty() && std::chrono::steady_clock::now() < deadline) {
        std::this_thread::sleep_for(kThreadInterval);
        found = unexpected_threads(allowed);
    }
    if (found.empty()) return {};
    return fmt::format(
        "not safe to fork: {} more thread{} than the main one: {}. A child would have only the "
        "main thread, and whatever locks the others held. Start threads after the spawn, not "
        "while preloading",
        found.size(), found.size() == 1 ? "" : "s", fmt::join(found, ", "));
}

std::string descriptors_in_the_way(const AllowList& allowed, const std::unordered_set<int>& own) {
    std::vector<std::string> found;
    for (const DescriptorFact& descriptor : list_descriptors(own))
        if (descriptor.hazardous && !allowed.descriptor(descriptor.target))
            found.push_back(fmt::format("{} ({})", descriptor.number, descriptor.target));
    if (found.empty()) return {};
    return fmt::format(
        "not safe to fork: preloading left descriptors open that children would share with each "
        "other: {}. Open connections and devices after the spawn",
        fmt::join(found, ", "));
}

std::string libraries_in_the_way(const PreloadInterface& preload) {
    const std::vector<std::string> found = libraries_past_the_recorder(preload);
    if (found.empty()) return {};
    return fmt::format(
        "not safe to fork: the fork handlers of {} are bound past warmfork's recorder "
        "(RTLD_DEEPBIND) and could not be run",
        fmt::join(found, ", "));
}

}  // namespace warmfork
