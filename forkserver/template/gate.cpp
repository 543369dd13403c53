#include "template/gate.hpp"

#include <dirent.h>
#include <fcntl.h>
#include <fmt/format.h>
#include <linux/kcmp.h>
#include <signal.h>
#include <sys/socket.h>
#include <sys/stat.h>
#include <sys/syscall.h>
#include <sys/sysmacros.h>
#include <unistd.h>

#include <algorithm>
#include <array>
#include <chrono>
#include <climits>
#include <cstdlib>
#include <cstring>
#include <fstream>
#include <thread>

#include "channel/descriptor.hpp"
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

/// Also one that cannot be asked: of that kind are packet sockets.
bool may_be_connected(int number) {
    sockaddr_storage peer;
    socklen_t size = sizeof peer;
    return ::getpeername(number, reinterpret_cast<sockaddr*>(&peer), &size) == 0 ||
           errno != ENOTCONN;
}

/// What leads to nothing outside of the process but has a state.
bool is_stateful_object(const std::string& target) {
    constexpr std::array<std::string_view, 8> stateful{
        "anon_inode:[io_uring]", "anon_inode:[eventpoll]", "anon_inode:[eventfd]",
        "anon_inode:[timerfd]",  "anon_inode:[signalfd]",  "anon_inode:inotify",
        "anon_inode:[fanotify]", "anon_inode:[perf_event]"};
    return std::find(stateful.begin(), stateful.end(), target) != stateful.end();
}

bool is_same_inode(int one, int other) {
    struct stat status, other_status;
    return ::fstat(one, &status) == 0 && ::fstat(other, &other_status) == 0 &&
           status.st_dev == other_status.st_dev && status.st_ino == other_status.st_ino;
}

/// Do both numbers stand for one open file? Where kcmp(2) is forbidden, as in most containers, the
/// signal of F_SETSIG tells, which belongs to the open file and means nothing before O_ASYNC: set
/// by the one number it is seen by the other. Where that cannot be asked either they may be the
/// same.
bool may_be_same_open_file(int one, int other) {
    const pid_t self = ::getpid();
    const long difference = ::syscall(SYS_kcmp, self, self, KCMP_FILE, one, other);
    if (difference >= 0 || errno == EBADF) return difference == 0;
    if (!is_same_inode(one, other)) return false;
    const int before = ::fcntl(other, F_GETSIG);
    const int of_one = ::fcntl(one, F_GETSIG);
    // Either is ignored unless somebody handles it.
    const int mark = of_one == SIGURG ? SIGWINCH : SIGURG;
    if (before < 0 || of_one < 0 || ::fcntl(other, F_SETSIG, mark) < 0) return true;
    const bool is_same = ::fcntl(one, F_GETSIG) == mark;
    return ::fcntl(other, F_SETSIG, before) < 0 || is_same;
}

/// A duplicate of a standard stream: the child's is another.
bool is_standard_stream(int number) {
    for (int standard : {0, 1, 2})
        if (number > 2 && may_be_same_open_file(number, standard)) return true;
    return false;
}

bool is_hazardous(int number, const std::string& target) {
    struct stat status;
    if (::fstat(number, &status) < 0) return false;
    if (is_standard_stream(number) || S_ISFIFO(status.st_mode)) return true;
    if (S_ISSOCK(status.st_mode)) return may_be_connected(number);
    if (S_ISCHR(status.st_mode) || S_ISBLK(status.st_mode)) return !is_harmless_device(status);
    return is_stateful_object(target);
}

/// Why nothing is known of what the file or directory lists, or an empty text.
std::string obstacle_to_reading(const char* path) {
    if (Descriptor(::open(path, O_RDONLY | O_CLOEXEC))) return {};
    return fmt::format("not safe to fork: what it would share is not known: cannot read {}: {}",
                       path, std::strerror(errno));
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

bool AllowList::has_prefix(std::string_view kind, const std::string& text) const {
    return std::any_of(entries_.begin(), entries_.end(), [&](const std::string& entry) {
        return entry.starts_with(kind) &&
               text.starts_with(std::string_view(entry).substr(kind.size()));
    });
}

bool AllowList::descriptor(const std::string& target) const {
    return has_prefix("descriptor:", target);
}

bool AllowList::mapping(const std::string& name) const {
    return has_prefix("mapping:", name);
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
        if (size < 0 && errno == ENOENT) continue;
        std::string name =
            size < 0 ? "unknown" : std::string(target, static_cast<std::size_t>(size));
        descriptors.push_back({number, name, is_hazardous(number, name)});
    }
    return descriptors;
}

std::string threads_in_the_way(const AllowList& allowed) {
    if (is_single_threaded()) return {};
    if (std::string obstacle = obstacle_to_reading("/proc/self/task"); !obstacle.empty())
        return obstacle;
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
    if (std::string obstacle = obstacle_to_reading("/proc/self/fd"); !obstacle.empty())
        return obstacle;
    std::vector<std::string> found;
    for (const DescriptorFact& descriptor : list_descriptors(own))
        if (descriptor.hazardous && !allowed.descriptor(descriptor.target))
            found.push_back(fmt::format("{} ({})", descriptor.number, descriptor.target));
    if (found.empty()) return {};
    return fmt::format(
        "not safe to fork: preloading left descriptors open that children would share with each "
        "other: {}. Open connections, pipes and devices after the spawn",
        fmt::join(found, ", "));
}

std::string mappings_in_the_way(const AllowList& allowed,
                                const std::unordered_set<const void*>& own) {
    if (std::string obstacle = obstacle_to_reading("/proc/self/maps"); !obstacle.empty())
        return obstacle;
    std::vector<std::string> found;
    std::ifstream maps("/proc/self/maps");
    for (std::string line; std::getline(maps, line);) {
        // address-address permissions offset device inode name
        const std::size_t permissions = line.find(' ') + 1;
        if (line.compare(permissions + 1, 1, "w") != 0 ||
            line.compare(permissions + 3, 1, "s") != 0)
            continue;
        const auto address = std::strtoull(line.c_str(), nullptr, 16);
        const std::size_t path = line.find('/');
        const std::string name = path == std::string::npos ? "anonymous" : line.substr(path);
        if (!own.count(reinterpret_cast<const void*>(address)) && !allowed.mapping(name))
            found.push_back(name);
    }
    if (found.empty()) return {};
    return fmt::format(
        "not safe to fork: preloading left memory that children would share with each other: {}. "
        "Make locks between processes and shared memory after the spawn",
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
