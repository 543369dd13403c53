#include "channel/process_identity.hpp"

#include <poll.h>
#include <signal.h>
#include <sys/stat.h>
#include <sys/vfs.h>
#include <sys/wait.h>
#include <time.h>

#include <algorithm>
#include <array>
#include <cerrno>
#include <charconv>
#include <cstdio>
#include <span>
#include <string_view>

namespace warmfork {
namespace {

constexpr long kProcessFiles = 0x50494446;  // PID_FS_MAGIC of linux/magic.h
constexpr std::uint64_t kIsNumber = std::uint64_t{1} << 63;
constexpr std::uint64_t kNanosecondsPerSecond = 1'000'000'000;

/// Does the process that has this number now, and had it all the time since it was started, stand
/// behind a mark that is a time?
bool was_there(const ProcessIdentity& process) {
    const std::uint64_t ticks = process_statistic(process.pid, kStartTimeField);
    const auto per_second = static_cast<std::uint64_t>(::sysconf(_SC_CLK_TCK));
    return ticks != 0 && ticks * (kNanosecondsPerSecond / per_second) <= process.mark;
}

/// Returns as much of a file as fits; empty where it cannot be read.
[[gnu::format(printf, 1, 0)]] std::string_view read_start(const char* path_format, int number,
                                                          std::span<char> buffer) {
    std::array<char, 48> path;
    std::snprintf(path.data(), path.size(), path_format, number);
    const Descriptor file(::open(path.data(), O_RDONLY | O_CLOEXEC));
    const ssize_t size = file ? ::read(file.get(), buffer.data(), buffer.size()) : 0;
    return {buffer.data(), size > 0 ? static_cast<std::size_t>(size) : 0};
}

/// Returns the fields of /proc/PID/stat from the third on, with the space before it. They stand
/// behind the name, which may hold anything.
std::string_view read_statistics(pid_t pid, std::span<char> buffer) {
    const std::string_view text = read_start("/proc/%d/stat", pid, buffer);
    return text.substr(std::min(text.size(), text.rfind(')') + 1));
}

int as_wait_status(const siginfo_t& info) {
    if (info.si_code == CLD_EXITED) return (info.si_status & 0xff) << 8;
    return info.si_status | (info.si_code == CLD_DUMPED ? WCOREFLAG : 0);
}

}  // namespace

std::uint64_t mark_by_time() {
    timespec now;
    ::clock_gettime(CLOCK_BOOTTIME, &now);  // the clock of start times
    return static_cast<std::uint64_t>(now.tv_sec) * kNanosecondsPerSecond +
           static_cast<std::uint64_t>(now.tv_nsec);
}

std::uint64_t mark_of(int pidfd, std::uint64_t otherwise) {
    struct statfs files;
    struct stat status;
    if (::fstatfs(pidfd, &files) == 0 && files.f_type == kProcessFiles &&
        ::fstat(pidfd, &status) == 0)
        return kIsNumber | status.st_ino;
    return otherwise;
}

ProcessIdentity identify_self() {
    const pid_t pid = ::getpid();
    const Descriptor pidfd = open_pidfd(pid);
    return {pid, mark_of(pidfd.get())};
}

Descriptor open_process(const ProcessIdentity& process) {
    errno = ESRCH;
    if (process.pid <= 0 || process.mark == 0) return {};
    Descriptor pidfd = open_pidfd(process.pid);
    if (!pidfd) return {};
    errno = 0;
    const bool is_same = process.mark & kIsNumber
                             ? mark_of(pidfd.get()) == process.mark
                             // It has not been reaped after the look either, so the look was at
                             // what is behind the pidfd.
                             : was_there(process) && signal_pidfd(pidfd.get(), 0) == 0;
    if (is_same) return pidfd;
    // Where it could not be looked at nothing is known: a process that is there has not been
    // reaped.
    if (errno != EMFILE && errno != ENFILE) errno = ESRCH;
    return {};
}

pid_t pid_of(int pidfd) {
    std::array<char, 512> buffer;
    const std::string_view text = read_start("/proc/self/fdinfo/%d", pidfd, buffer);
    constexpr std::string_view name = "\nPid:\t";
    const std::size_t at = text.find(name);
    pid_t pid = 0;
    if (at != std::string_view::npos)
        std::from_chars(text.data() + at + name.size(), text.data() + text.size(), pid);
    return std::max(pid, 0);
}

bool has_ended(int pidfd) {
    pollfd polled{pidfd, POLLIN, 0};
    return ::poll(&polled, 1, 0) > 0;
}

bool is_running(const ProcessIdentity& process) {
    const Descriptor pidfd = open_process(process);
    return pidfd && !has_ended(pidfd.get());
}

int reap(int pidfd, int options, int* ret_status, rusage* ret_usage) {
    siginfo_t info{};
    // The system call tells the usage too, which libc's function does not.
    while (::syscall(SYS_waitid, P_PIDFD, pidfd, &info, WEXITED | __WALL | options, ret_usage) < 0)
        if (errno != EINTR) return errno;
    if (info.si_pid == 0) return EAGAIN;
    if (ret_status) *ret_status = as_wait_status(info);
    return 0;
}

std::uint64_t process_statistic(pid_t pid, int field) {
    std::array<char, 1024> buffer;
    std::string_view rest = read_statistics(pid, buffer);
    for (int number = 3; number <= field; ++number)
        rest.remove_prefix(std::min(rest.size(), rest.find(' ') + 1));
    std::uint64_t value = 0;
    std::from_chars(rest.data(), rest.data() + rest.size(), value);
    return value;
}

char process_state(pid_t pid) {
    std::array<char, 1024> buffer;
    const std::string_view fields = read_statistics(pid, buffer);
    return fields.size() > 1 ? fields[1] : '\0';
}

}  // namespace warmfork
