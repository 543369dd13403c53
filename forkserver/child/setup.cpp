#include "child/setup.hpp"

#include <fcntl.h>
#include <sched.h>
#include <signal.h>
#include <sys/prctl.h>
#include <sys/resource.h>
#include <sys/stat.h>
#include <sys/syscall.h>
#include <unistd.h>

#include <algorithm>
#include <cerrno>

#include "child/proc_entries.hpp"

namespace warmfork {
namespace {

constexpr int kSignalCount = 64;

bool fail(ChildFailure& failure, Stage stage, int detail) {
    failure = {stage, errno, detail};
    return false;
}

bool contains(std::span<const std::int32_t> numbers, int number) {
    return std::find(numbers.begin(), numbers.end(), number) != numbers.end();
}

bool is_settable(int signal) {
    return signal != SIGKILL && signal != SIGSTOP && signal != 32 && signal != 33;
}

bool set_disposition(int signal, void (*disposition)(int)) {
    struct sigaction action {};
    action.sa_handler = disposition;
    return ::sigaction(signal, &action, nullptr) == 0;
}

/// Renumbers a descriptor that lies where a target will be. The numbers that are tried on the way
/// are targets themselves and so are replaced by the placing that follows.
bool move_off_targets(int& number, std::span<const std::int32_t> targets) {
    while (number >= 0 && contains(targets, number)) {
        const int other = ::fcntl(number, F_DUPFD_CLOEXEC, 0);
        if (other < 0) return false;
        number = other;
    }
    return true;
}

bool place_descriptors(std::span<const std::int32_t> targets, ChildDescriptors& descriptors,
                       ChildFailure& failure) {
    for (std::size_t i = 0; i < targets.size(); ++i) {
        int& source = descriptors.sources[i];
        if (source != targets[i] && !move_off_targets(source, targets))
            return fail(failure, Stage::descriptors, targets[i]);
    }
    if (!move_off_targets(descriptors.directory, targets) ||
        !move_off_targets(descriptors.reply, targets))
        return fail(failure, Stage::descriptors, -1);

    for (std::size_t i = 0; i < targets.size(); ++i) {
        const int placed = descriptors.sources[i] == targets[i]
                               ? ::fcntl(targets[i], F_SETFD, 0)
                               : ::dup2(descriptors.sources[i], targets[i]);
        if (placed < 0) return fail(failure, Stage::descriptors, targets[i]);
    }

    auto end = std::copy(targets.begin(), targets.end(), descriptors.kept.begin());
    end = std::copy(descriptors.image.begin(), descriptors.image.end(), end);
    *end++ = descriptors.directory;
    *end++ = descriptors.reply;
    errno = close_all_but({descriptors.kept.begin(), end});
    return errno == 0 || fail(failure, Stage::descriptors, -1);
}

bool join_session(const RecordHeader& header, ChildFailure& failure) {
    if ((header.flags & kRecordNewSession) && ::setsid() < 0)
        return fail(failure, Stage::session, 0);
    if ((header.flags & kRecordProcessGroup) && ::setpgid(0, header.process_group) < 0)
        return fail(failure, Stage::session, header.process_group);
    return true;
}

bool ignore_signals(std::uint64_t ignored, ChildFailure& failure) {
    for (int signal = 1; signal <= kSignalCount; ++signal)
        if ((ignored >> (signal - 1) & 1) && is_settable(signal) &&
            !set_disposition(signal, SIG_IGN))
            return fail(failure, Stage::signals, signal);
    return true;
}

bool write_oom_score_adjust(int value) {
    const int file = ::open("/proc/self/oom_score_adj", O_WRONLY | O_CLOEXEC);
    if (file < 0) return false;
    char text[8];
    char* end = text + sizeof text;
    char* begin = end;
    unsigned rest = static_cast<unsigned>(value < 0 ? -value : value);
    do *--begin = static_cast<char>('0' + rest % 10);
    while (rest /= 10);
    if (value < 0) *--begin = '-';
    const bool written = ::write(file, begin, static_cast<std::size_t>(end - begin)) > 0;
    const int error = errno;
    ::close(file);
    errno = error;
    return written;
}

bool apply_limits(const RecordView& record, ChildFailure& failure) {
    const RecordHeader& header = record.header;
    if (header.flags & kRecordUmask) ::umask(static_cast<mode_t>(header.file_mode_mask));
    if (!record.affinity.empty() &&
        ::sched_setaffinity(0, record.affinity.size(),
                            reinterpret_cast<const cpu_set_t*>(record.affinity.data())) < 0)
        return fail(failure, Stage::limits, 0);
    if ((header.flags & kRecordNice) && ::setpriority(PRIO_PROCESS, 0, header.nice) < 0)
        return fail(failure, Stage::limits, 0);
    if ((header.flags & kRecordOomScoreAdjust) && !write_oom_score_adjust(header.oom_score_adjust))
        return fail(failure, Stage::limits, 0);
    for (const RecordLimit& limit : record.limits) {
        const rlimit value{limit.soft, limit.hard};
        if (::setrlimit(static_cast<__rlimit_resource>(limit.resource), &value) < 0)
            return fail(failure, Stage::limits, static_cast<int>(limit.resource));
    }
    if ((header.flags & kRecordNoNewPrivileges) && ::prctl(PR_SET_NO_NEW_PRIVS, 1, 0, 0, 0) < 0)
        return fail(failure, Stage::limits, 0);
    return true;
}

bool enter_directory(const RecordView& record, int& directory, ChildFailure& failure) {
    if (directory >= 0) {
        if (::fchdir(directory) < 0) return fail(failure, Stage::directory, 0);
        ::close(directory);
        directory = -1;
    }
    if (record.directory && ::chdir(record.directory) < 0)
        return fail(failure, Stage::directory, 0);
    return true;
}

/// The owner may have died before the parent-death signal was asked for: then nobody sends it.
bool bind_to_owner(const RecordHeader& header, ChildFailure& failure) {
    const bool is_owners = header.lifetime == Lifetime::owner;
    const bool is_told = is_owners && (header.flags & kRecordParentDeathSignal);
    // The first process of a pid namespace gets no other signal, and sees no parent.
    const int signal = ::getpid() == 1 ? SIGKILL : SIGTERM;
    // It is set also where the child is to have none: a parked child has one of its own.
    if (::prctl(PR_SET_PDEATHSIG, is_told ? signal : 0, 0, 0, 0) < 0)
        return fail(failure, Stage::signals, signal);
    const pid_t parent = ::getppid();
    if (is_owners && parent != header.owner_pid && parent != 0) ::_exit(128 + SIGTERM);
    return true;
}

/// Closes those that /proc/self/fd lists and that are not in `kept`, which is sorted. Returns 0 or
/// errno.
int close_listed(std::span<const int> kept) {
    const auto is_kept = [&](int number) {
        return std::binary_search(kept.begin(), kept.end(), number);
    };
    const auto close = [&](int number) {
        if (!is_kept(number)) ::close(number);
    };
    int error = visit_numbered_entries("/proc/self/fd", close);
    // The list itself needs a number. Of so many one is not kept, and is closed for it.
    for (int number = 0; error == EMFILE && number <= static_cast<int>(kept.size()); ++number) {
        if (is_kept(number) || ::close(number) < 0) continue;
        error = visit_numbered_entries("/proc/self/fd", close);
    }
    return error;
}

}  // namespace

bool set_up_child(const RecordView& record, ChildDescriptors& descriptors,
                  ChildFailure& ret_failure) {
    if (!place_descriptors(record.descriptor_targets, descriptors, ret_failure)) return false;
    if (!join_session(record.header, ret_failure)) return false;
    if ((record.header.flags & kRecordSignalsIgnored) &&
        !ignore_signals(record.header.signals_ignored, ret_failure))
        return false;
    if (!apply_limits(record, ret_failure)) return false;
    if (!enter_directory(record, descriptors.directory, ret_failure)) return false;
    return bind_to_owner(record.header, ret_failure);
}

bool reset_dispositions() {
    for (int signal = 1; signal <= kSignalCount; ++signal)
        if (is_settable(signal) && !set_disposition(signal, SIG_DFL)) return false;
    return true;
}

bool reset_handlers() {
    for (int signal = 1; signal <= kSignalCount; ++signal) {
        if (!is_settable(signal)) continue;
        struct sigaction action;
        if (::sigaction(signal, nullptr, &action) < 0) return false;
        if (action.sa_handler != SIG_DFL && action.sa_handler != SIG_IGN &&
            !set_disposition(signal, SIG_DFL))
            return false;
    }
    return true;
}

bool set_signal_mask(std::uint64_t mask) {
    // The system call itself: glibc's wrapper leaves out the two signals that it keeps.
    return ::syscall(SYS_rt_sigprocmask, SIG_SETMASK, &mask, nullptr, sizeof mask) == 0;
}

std::uint64_t signal_mask() {
    std::uint64_t mask = 0;
    ::syscall(SYS_rt_sigprocmask, SIG_BLOCK, nullptr, &mask, sizeof mask);
    return mask;
}

int close_all_but(std::span<int> kept) {
    std::sort(kept.begin(), kept.end());
    unsigned next = 0;
    long result = 0;
    for (int number : kept) {
        if (number < 0) continue;
        const auto keep = static_cast<unsigned>(number);
        if (keep > next) result |= ::syscall(SYS_close_range, next, keep - 1, 0);
        next = keep + 1;
    }
    result |= ::syscall(SYS_close_range, next, ~0u, 0);
    return result == 0 ? 0 : close_listed(kept);
}

}  // namespace warmfork
