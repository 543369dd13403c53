#include "owner/owner_state.hpp"

#include <fcntl.h>
#include <linux/kcmp.h>
#include <sched.h>
#include <signal.h>
#include <sys/personality.h>
#include <sys/prctl.h>
#include <sys/stat.h>
#include <sys/syscall.h>
#include <unistd.h>

#include <algorithm>
#include <cstdlib>
#include <string_view>

#include "child/setup.hpp"
#include "owner/kept_descriptor.hpp"
#include "protocol/fields.hpp"

namespace warmfork {
namespace {

// IOPRIO_WHO_PROCESS of ioprio_get(2). linux/ioprio.h is not included: that of Linux 6.1.192 is no
// C++.
constexpr int kIoPriorityOfProcess = 1;

/// Files of /proc that are read at every spawn, each by one pread on a kept descriptor.
struct ProcFiles {
    pid_t thread =
        0;  ///< whose they are: a forked copy of the owner and other threads open their own
    KeptDescriptor status, cgroup, oom_score_adjust;
    bool are_intact() const { return status && cgroup && oom_score_adjust; }
};

ProcFiles open_proc_files() {
    const auto open = [](const char* path) {
        return KeptDescriptor(Descriptor(::open(path, O_RDONLY | O_CLOEXEC)));
    };
    return {::gettid(), open("/proc/thread-self/status"), open("/proc/thread-self/cgroup"),
            open("/proc/thread-self/oom_score_adj")};
}

ProcFiles& proc_files() {
    thread_local ProcFiles files;
    if (files.thread != ::gettid() || !files.are_intact()) {
        // Let go of first: the same file under the number that somebody has closed is the same
        // file to KeptDescriptor, and would be closed with the old one.
        files = ProcFiles();
        files = open_proc_files();
    }
    return files;
}

std::string_view read_again(const KeptDescriptor& file, std::span<char> buffer) {
    const ssize_t size = ::pread(file.unchecked(), buffer.data(), buffer.size(), 0);
    return {buffer.data(), size > 0 ? static_cast<std::size_t>(size) : 0};
}

void read_status(OwnerState& state, const KeptDescriptor& file) {
    std::array<char, 8192> buffer;
    std::string_view status = read_again(file, std::span(buffer).first(8191));
    if (status.empty()) return;
    buffer[status.size()] = '\0';
    state.is_known = true;
    state.credentials.reserve(512);
    while (!status.empty()) {
        const std::string_view line = status.substr(0, status.find('\n'));
        const std::size_t colon = std::min(line.find(':'), line.size());
        const std::string_view key = line.substr(0, colon);
        const char* value = line.data() + std::min(colon + 1, line.size());
        if (key == "Umask")
            state.file_mode_mask = static_cast<std::uint32_t>(std::strtoul(value, nullptr, 8));
        else if (key == "SigIgn")
            state.signals_ignored = std::strtoull(value, nullptr, 16);
        else if (key == "NoNewPrivs")
            state.no_new_privileges = std::atoi(value) != 0;
        else if (key == "Uid" || key == "Gid" || key == "Groups" || key.starts_with("Cap") ||
                 key.starts_with("Seccomp"))
            state.credentials.append(line).push_back('\n');
        status.remove_prefix(std::min(line.size() + 1, status.size()));
    }
}

bool is_same(const rlimit& one, const rlimit& other) {
    return one.rlim_cur == other.rlim_cur && one.rlim_max == other.rlim_max;
}

constexpr const char* kSince = " since the template was started";

std::string find_change_of_process(const OwnerState& then, const OwnerState& now, Parent parent) {
    const std::string since = kSince;
    const bool is_own = parent == Parent::owner;
    if (is_own && then.session != now.session)
        return "the owner has moved to another session" + since;
    if (then.root_mount != now.root_mount || then.root_device != now.root_device ||
        then.root_inode != now.root_inode)
        return "the owner's root directory or mount namespace has changed" + since;
    if (is_own && then.cgroup != now.cgroup) return "the owner has moved to another cgroup" + since;
    if (is_own && now.oom_score_adjust < then.oom_score_adjust)
        return "the owner's oom_score_adj is lower than the template's";
    for (int resource : {RLIMIT_STACK, RLIMIT_AS, RLIMIT_DATA})
        if (!is_same(then.limits[resource], now.limits[resource]))
            return "the owner's limit on stack, data or address space has changed" + since;
    for (std::uint32_t resource = 0; resource < kResourceLimitCount; ++resource)
        if (now.limits[resource].rlim_max > then.limits[resource].rlim_max)
            return "the owner has a higher hard limit than the template";
    return {};
}

std::string find_change_of_thread(const OwnerState& then, const OwnerState& now) {
    const std::string since = kSince;
    if (then.credentials != now.credentials)
        return "the owner's ids, groups, capabilities or seccomp filters have changed" + since;
    if (then.no_new_privileges && !now.no_new_privileges)
        return "the calling thread has privileges that the template gave up";
    if (then.scheduler != now.scheduler || then.io_priority != now.io_priority)
        return "the owner's scheduling class or I/O priority has changed" + since;
    if (then.personality != now.personality || then.secure_bits != now.secure_bits ||
        then.timer_slack != now.timer_slack)
        return "the owner's personality, securebits or timer slack has changed" + since;
    if (now.nice < then.nice) return "the owner's nice value is lower than the template's";
    return {};
}

OwnerState read_state(const ProcFiles& files) {
    OwnerState state;
    state.thread = ::gettid();
    read_status(state, files.status);
    std::array<char, 8192> buffer;
    state.cgroup = read_again(files.cgroup, buffer);
    std::array<char, 32> number{};
    read_again(files.oom_score_adjust, std::span(number).first(31));
    state.oom_score_adjust = std::atoi(number.data());

    state.signal_mask = signal_mask();
    state.nice = ::getpriority(PRIO_PROCESS, 0);
    state.process_group = ::getpgrp();
    state.session = ::getsid(0);
    for (std::uint32_t resource = 0; resource < kResourceLimitCount; ++resource)
        ::getrlimit(static_cast<__rlimit_resource>(resource), &state.limits[resource]);
    const long affinity_size =
        ::syscall(SYS_sched_getaffinity, 0, state.affinity.size(), state.affinity.data());
    state.affinity_size = affinity_size > 0 ? static_cast<std::size_t>(affinity_size) : 0;

    struct statx root {};
    ::statx(AT_FDCWD, "/", AT_STATX_DONT_SYNC, STATX_INO | STATX_MNT_ID, &root);
    state.root_mount = root.stx_mnt_id;
    state.root_device = std::uint64_t{root.stx_dev_major} << 32 | root.stx_dev_minor;
    state.root_inode = root.stx_ino;
    state.scheduler = ::sched_getscheduler(0);
    state.io_priority = static_cast<int>(::syscall(SYS_ioprio_get, kIoPriorityOfProcess, 0));
    state.personality = ::personality(0xffffffff);
    state.secure_bits = ::prctl(PR_GET_SECUREBITS, 0, 0, 0, 0);
    state.timer_slack = ::prctl(PR_GET_TIMERSLACK, 0, 0, 0, 0);
    return state;
}

}  // namespace

OwnerState read_owner_state() {
    return read_state(proc_files());
}

OwnerState read_owner_state_once() {
    return read_state(open_proc_files());
}

std::string find_incompatible_change(const OwnerState& then, const OwnerState& now, Parent parent) {
    if (!then.is_known || !now.is_known) return "the owner's state cannot be read from /proc";
    std::string change = find_change_of_process(then, now, parent);
    return change.empty() ? find_change_of_thread(then, now) : change;
}

bool is_of_one_thread(const OwnerState& then, const OwnerState& now) {
    if (now.thread == then.thread || ::tgkill(::getpid(), then.thread, 0) < 0 ||
        !find_change_of_process(then, now, Parent::owner).empty())
        return false;
    // By way of libc ids change in all threads.
    const std::string path = "/proc/self/task/" + std::to_string(then.thread) + "/status";
    OwnerState other;
    read_status(other, KeptDescriptor(Descriptor(::open(path.c_str(), O_RDONLY | O_CLOEXEC))));
    return other.is_known && other.credentials == then.credentials &&
           other.no_new_privileges == then.no_new_privileges;
}

namespace {

/// Calls `visit` with each part that is plain memory.
template <typename State, typename Visit>
void visit_parts(State& state, Visit visit) {
    visit(state.is_known), visit(state.signals_ignored), visit(state.signal_mask);
    visit(state.file_mode_mask), visit(state.no_new_privileges), visit(state.nice);
    visit(state.oom_score_adjust), visit(state.process_group), visit(state.limits);
    visit(state.affinity), visit(state.affinity_size), visit(state.session);
    visit(state.root_mount), visit(state.root_device), visit(state.root_inode);
    visit(state.scheduler), visit(state.io_priority), visit(state.personality);
    visit(state.secure_bits), visit(state.timer_slack);
}

}  // namespace

std::string encode_owner_state(const OwnerState& state) {
    FieldWriter writer;
    visit_parts(state, [&](const auto& part) {
        writer.text({reinterpret_cast<const char*>(&part), sizeof part});
    });
    writer.text(state.credentials).text(state.cgroup);
    return {reinterpret_cast<const char*>(writer.bytes().data()), writer.bytes().size()};
}

OwnerState decode_owner_state(std::string_view text) {
    OwnerState state;
    FieldReader reader(std::as_bytes(std::span(text)));
    bool is_whole = true;
    visit_parts(state, [&](auto& part) {
        const std::string bytes = reader.text();
        is_whole = is_whole && bytes.size() == sizeof part;
        if (is_whole) std::memcpy(&part, bytes.data(), sizeof part);
    });
    state.credentials = reader.text();
    state.cgroup = reader.text();
    state.affinity_size = std::min(state.affinity_size, state.affinity.size());
    state.is_known = state.is_known && is_whole && reader.is_whole();
    return state;
}

bool can_compare_with(pid_t template_pid) {
    return ::syscall(SYS_kcmp, ::getpid(), template_pid, KCMP_VM, 0, 0) >= 0 || errno != EPERM;
}

void add_differences(const OwnerState& then, const OwnerState& now, RecordContents& contents) {
    RecordHeader& header = contents.header;
    if (!(header.flags & kRecordUmask)) {
        header.flags |= kRecordUmask;  // always: preloading may have changed the template's
        header.file_mode_mask = now.file_mode_mask;
    }
    if (now.no_new_privileges != then.no_new_privileges) header.flags |= kRecordNoNewPrivileges;
    if (!(header.flags & kRecordNice) && now.nice != then.nice) {
        header.flags |= kRecordNice;
        header.nice = now.nice;
    }
    if (now.oom_score_adjust > then.oom_score_adjust) {  // lower is the service's: see Parent
        header.flags |= kRecordOomScoreAdjust;
        header.oom_score_adjust = now.oom_score_adjust;
    }
    const std::span<const std::byte> affinity(now.affinity.data(), now.affinity_size);
    const bool same_affinity = now.affinity_size == then.affinity_size &&
                               std::equal(affinity.begin(), affinity.end(), then.affinity.begin());
    if (contents.affinity.empty() && !same_affinity)
        contents.affinity.assign(affinity.begin(), affinity.end());
    for (std::uint32_t resource = 0; resource < kResourceLimitCount; ++resource) {
        const bool is_requested =
            std::any_of(contents.limits.begin(), contents.limits.end(),
                        [&](const RecordLimit& limit) { return limit.resource == resource; });
        if (!is_requested && !is_same(then.limits[resource], now.limits[resource]))
            contents.limits.push_back(
                {resource, 0, now.limits[resource].rlim_cur, now.limits[resource].rlim_max});
    }
}

}  // namespace warmfork
