#include "template/gate.hpp"

#include <fcntl.h>
#include <fmt/format.h>
#include <sys/stat.h>
#include <sys/syscall.h>
#include <sys/sysmacros.h>
#include <unistd.h>

#include <algorithm>
#include <array>
#include <charconv>
#include <chrono>
#include <climits>
#include <cstdlib>
#include <cstring>
#include <fstream>

#include "channel/descriptor.hpp"
#include "channel/open_file.hpp"
#include "child/proc_entries.hpp"
#include "child/threads.hpp"
#include "template/atfork.hpp"

namespace warmfork {
namespace {

// After pthread_join the kernel was seen to count the thread for up to 157 microseconds; where
// others have the processors, until it has had its turn.
constexpr auto kThreadPatience = std::chrono::milliseconds(200);
constexpr timespec kThreadInterval{0, 100'000};

/// How many descriptors are open, in one system call; 0 before Linux 6.2, which does not say.
std::size_t count_descriptors() {
    // It is not stat, which the preload library interposes.
    struct statx status;
    const bool is_known =
        ::syscall(SYS_statx, AT_FDCWD, "/proc/self/fd", 0, STATX_SIZE, &status) == 0 &&
        (status.stx_mask & STATX_SIZE) != 0;
    return is_known ? static_cast<std::size_t>(status.stx_size) : 0;
}

// What follows, down to the visits, is called between fork handlers: it allocates and locks
// nothing.

bool is_harmless_device(const struct stat& status) {
    // Devices without state that children could share: null, zero, full, random, urandom.
    constexpr std::array<unsigned, 5> harmless{3, 5, 7, 8, 9};
    return S_ISCHR(status.st_mode) && major(status.st_rdev) == 1 &&
           std::find(harmless.begin(), harmless.end(), minor(status.st_rdev)) != harmless.end();
}

/// Does it lead to nothing outside of the process, but have a state?
bool is_stateful_object(std::string_view target) {
    constexpr std::array<std::string_view, 9> stateful{
        "anon_inode:[io_uring]", "anon_inode:[eventpoll]",  "anon_inode:[eventfd]",
        "anon_inode:[timerfd]",  "anon_inode:[signalfd]",   "anon_inode:inotify",
        "anon_inode:[fanotify]", "anon_inode:[perf_event]", "anon_inode:[pidfd]"};
    return std::find(stateful.begin(), stateful.end(), target) != stateful.end();
}

/// Is it what the kernel shows of this process, and in a child would show of that?
bool is_of_this_process(std::string_view target) {
    constexpr std::string_view start = "/proc/";
    if (!target.starts_with(start)) return false;
    pid_t pid = 0;
    std::from_chars(target.data() + start.size(), target.data() + target.size(), pid);
    return pid == ::getpid();
}

/// Is it a duplicate of a standard stream? The child's is another.
bool is_standard_stream(int number) {
    for (int standard : {0, 1, 2})
        if (number > 2 && is_same_open_file(number, standard).value_or(true)) return true;
    return false;
}

/// Is it a file that is written to? A cold child would have made, emptied or opened one of its own.
bool is_written_file(int number, const struct stat& status) {
    const int flags = ::fcntl(number, F_GETFL);
    return S_ISREG(status.st_mode) && (flags < 0 || (flags & O_ACCMODE) != O_RDONLY);
}

/// Also one that cannot be asked what it is.
bool is_hazardous(int number, std::string_view target) {
    struct stat status;
    if (::fstat(number, &status) < 0) return errno != EBADF;  // closed meanwhile
    if (is_standard_stream(number) || S_ISFIFO(status.st_mode)) return true;
    if (is_written_file(number, status)) return true;
    // Also one that is not connected: whoever binds it, or listens, does it for all.
    if (S_ISSOCK(status.st_mode) || is_of_this_process(target)) return true;
    if (S_ISCHR(status.st_mode) || S_ISBLK(status.st_mode)) return !is_harmless_device(status);
    return is_stateful_object(target);
}

/// Calls `visit` with number and name of each thread. Returns 0 or errno.
template <typename Visit>
int visit_threads(Visit visit) {
    return visit_numbered_entries("/proc/self/task", [&](int id) {
        std::array<char, 64> buffer;
        errno = 0;
        const std::string_view name =
            read_line(NumberedPath("/proc/self/task/", id, "/comm").get(), buffer);
        const bool has_ended = name.empty() && (errno == ENOENT || errno == ESRCH);
        if (!has_ended) visit(id, name.empty() && errno != 0 ? "(unknown)" : name);
    });
}

/// Calls `visit` with number, target and hazard of each descriptor that is not one of `own`
/// (sorted). Returns 0 or errno.
template <typename Visit>
int visit_descriptors(std::span<const int> own, Visit visit) {
    return visit_numbered_entries("/proc/self/fd", [&](int number) {
        if (std::binary_search(own.begin(), own.end(), number)) return;
        std::array<char, PATH_MAX> buffer;
        const long size =
            ::syscall(SYS_readlinkat, AT_FDCWD, NumberedPath("/proc/self/fd/", number).get(),
                      buffer.data(), buffer.size());
        if (size < 0 && errno == ENOENT) return;
        if (size < 0) return visit(number, "(unknown)", true);
        const std::string_view target(buffer.data(), static_cast<std::size_t>(size));
        visit(number, target, is_hazardous(number, target));
    });
}

}  // namespace

bool AllowList::thread(std::string_view name) const {
    constexpr std::string_view kind = "thread:";
    return std::any_of(entries_.begin(), entries_.end(), [&](std::string_view entry) {
        return entry.starts_with(kind) && entry.substr(kind.size()) == name;
    });
}

bool AllowList::has_prefix(std::string_view kind, std::string_view text) const {
    return std::any_of(entries_.begin(), entries_.end(), [&](std::string_view entry) {
        return entry.starts_with(kind) && text.starts_with(entry.substr(kind.size()));
    });
}

bool AllowList::descriptor(std::string_view target) const {
    return has_prefix("descriptor:", target);
}

bool AllowList::mapping(std::string_view name) const {
    return has_prefix("mapping:", name);
}

bool AllowList::finding(std::string_view name) const {
    // A file's name has dots that mean nothing.
    const bool is_of_module = !name.starts_with("directory:./");
    return std::any_of(entries_.begin(), entries_.end(), [&](std::string_view entry) {
        return name == entry ||
               (is_of_module && name.starts_with(entry) && name[entry.size()] == '.');
    });
}

std::vector<ThreadFact> list_threads() {
    std::vector<ThreadFact> threads;
    // This is for a report, which shows what there is to be seen.
    static_cast<void>(visit_threads([&](int id, std::string_view name) {
        threads.push_back({id, std::string(name)});
    }));
    return threads;
}

std::vector<DescriptorFact> list_descriptors(std::span<const int> own) {
    std::vector<DescriptorFact> descriptors;
    static_cast<void>(
        visit_descriptors(own, [&](int number, std::string_view target, bool is_hazardous) {
            descriptors.push_back({number, std::string(target), is_hazardous});
        }));
    std::sort(descriptors.begin(), descriptors.end(),
              [](const auto& one, const auto& other) { return one.number < other.number; });
    return descriptors;
}

void ForkCheck::prepare(std::vector<int> own) {
    own_ = std::move(own);
    open_before_ = count_descriptors();
    // What came and went since the last fork was the template's own.
    if (checked_ != 0) checked_ = open_before_;
}

void ForkCheck::finish(std::size_t added) {
    if (count_descriptors() != open_before_ + added) checked_ = 0;
}

void ForkCheck::note(int number, std::string_view name) {
    if (count_ < kMostFound) {
        Found& found = found_[count_];
        found.number = number;
        found.name[name.copy(found.name.data(), found.name.size() - 1)] = '\0';
    }
    ++count_;
}

bool ForkCheck::find_other_threads() {
    if (is_single_threaded()) return false;
    kind_ = Kind::threads;
    const int own = ::gettid();
    const auto deadline = std::chrono::steady_clock::now() + kThreadPatience;
    while (true) {
        const bool is_last_look = std::chrono::steady_clock::now() >= deadline;
        count_ = 0;
        error_ = visit_threads([&](int id, std::string_view name) {
            if (id != own && !allowed_.thread(name)) note(id, name);
        });
        if (error_ != 0) return true;
        if (count_ == 0) return false;
        if (is_last_look) return true;
        ::syscall(SYS_nanosleep, &kThreadInterval, nullptr);
    }
}

bool ForkCheck::find_hazardous_descriptors() {
    const std::size_t open = count_descriptors();
    if (open != 0 && open == checked_) return false;
    kind_ = Kind::descriptors;
    checked_ = count_ = 0;
    error_ = visit_descriptors(own_, [&](int number, std::string_view target, bool is_hazardous) {
        if (is_hazardous && !allowed_.descriptor(target)) note(number, target);
    });
    if (error_ != 0 || count_ > 0) return true;
    checked_ = open;
    return false;
}

bool ForkCheck::run() {
    return !find_other_threads() && !find_hazardous_descriptors();
}

std::string ForkCheck::list_found() const {
    std::vector<std::string> found;
    for (std::size_t i = 0; i < std::min(count_, kMostFound); ++i)
        found.push_back(kind_ == Kind::threads
                            ? fmt::format("{} (thread {})", found_[i].name.data(), found_[i].number)
                            : fmt::format("{} ({})", found_[i].number, found_[i].name.data()));
    if (count_ > kMostFound) found.push_back(fmt::format("and {} more", count_ - kMostFound));
    return fmt::format("{}", fmt::join(found, ", "));
}

std::string ForkCheck::obstacle() const {
    if (error_ != 0)
        return fmt::format("not safe to fork: its {} are not known: cannot list /proc/self/{}: {}",
                           kind_ == Kind::threads ? "threads" : "descriptors",
                           kind_ == Kind::threads ? "task" : "fd", std::strerror(error_));
    if (kind_ == Kind::threads)
        return fmt::format(
            "not safe to fork: {} more thread{} than the main one: {}. A child would have only the "
            "main thread, and whatever locks the others held. Start threads after the spawn, not "
            "while preloading",
            count_, count_ == 1 ? "" : "s", list_found());
    return fmt::format(
        "not safe to fork: preloading left descriptors open that children would share with each "
        "other: {}. Open connections, pipes, devices and files to write after the spawn",
        list_found());
}

std::string mappings_in_the_way(const AllowList& allowed,
                                const std::unordered_set<const void*>& own) {
    std::vector<std::string> found;
    std::ifstream maps("/proc/self/maps");
    for (std::string line; std::getline(maps, line);) {
        // The line has: address-address permissions offset device inode name
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
    if (!maps.is_open() || maps.bad())
        return fmt::format(
            "not safe to fork: what it would share is not known: cannot read /proc/self/maps: {}",
            std::strerror(errno));
    if (found.empty()) return {};
    return fmt::format(
        "not safe to fork: preloading left memory that children would share with each other: {}. "
        "Make locks between processes and shared memory after the spawn",
        fmt::join(found, ", "));
}

std::string findings_in_the_way(const AllowList& allowed, std::span<const Finding> findings) {
    std::vector<std::string> found, names;
    for (const Finding& finding : findings) {
        if (allowed.finding(finding.name)) continue;
        found.push_back(finding.text);
        names.push_back('"' + finding.name + '"');
    }
    if (found.empty()) return {};
    return fmt::format(
        "children would not be as cold ones are: {}. Leave the modules to the children, do it "
        "after the spawn, or allow it: allow=[{}]",
        fmt::join(found, "; "), fmt::join(names, ", "));
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
