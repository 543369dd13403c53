#include "owner/owner_state.hpp"

#include <fcntl.h>
#include <linux/capability.h>
#include <linux/landlock.h>
#include <sched.h>
#include <signal.h>
#include <sys/stat.h>
#include <sys/syscall.h>
#include <sys/utsname.h>
#include <unistd.h>

#include <algorithm>
#include <cstdlib>
#include <cstring>
#include <string_view>
#include <type_traits>

#include "channel/proc_file.hpp"
#include "child/setup.hpp"
#include "owner/kept_descriptor.hpp"
#include "protocol/fields.hpp"

namespace warmfork {
namespace {

// The namespaces of a task. Those that its children get may be others than its own.
constexpr std::array<const char*, std::tuple_size_v<Namespaces>> kNamespaceNames{
    "cgroup", "ipc", "mnt", "net", "pid", "pid_for_children", "time_for_children", "user", "uts"};
constexpr std::size_t kPidNamespace = 4, kChildrensPidNamespace = 5;

/// Files of /proc that are read at every spawn, each by one pread on a kept descriptor.
struct ProcFiles {
    pid_t thread =
        0;  ///< whose they are: a forked copy of the owner and other threads open their own
    KeptDescriptor namespaces;  ///< their directory
    KeptDescriptor status, cgroup, oom_score_adjust, core_dump_filter;
    KeptDescriptor security_label;  ///< none: this kernel has no labels
    bool have_labels = false;
    int error = 0;  ///< why one of them could not be opened
    bool are_intact() const {
        return namespaces && status && cgroup && oom_score_adjust && core_dump_filter &&
               (!have_labels || security_label);
    }
};

ProcFiles open_proc_files() {
    int error = 0;
    const auto open = [&error](const char* path, int flags = O_RDONLY) {
        Descriptor file(::open(path, flags | O_CLOEXEC));
        if (!file) error = errno;
        return KeptDescriptor(std::move(file));
    };
    ProcFiles files{::gettid(),
                    open("/proc/thread-self/ns", O_PATH | O_DIRECTORY),
                    open("/proc/thread-self/status"),
                    open("/proc/thread-self/cgroup"),
                    open("/proc/thread-self/oom_score_adj"),
                    open("/proc/self/coredump_filter"),
                    open("/proc/thread-self/attr/current"),
                    true,
                    error};
    // Where no module of the kernel labels tasks, the file cannot be read, or is not there.
    std::array<char, 1> first;
    const bool is_missing = !files.security_label && errno == ENOENT;
    if (is_missing ||
        (files.security_label &&
         ::pread(files.security_label.unchecked(), first.data(), 1, 0) < 0 && errno == EINVAL)) {
        files.security_label = KeptDescriptor();
        files.have_labels = false;
    }
    return files;
}

ProcFiles& proc_files() {
    thread_local ProcFiles files;
    if (files.thread != ::gettid() || !files.are_intact()) {
        // The old ones are let go of first: the same file under a number that somebody has closed
        // is the same file to KeptDescriptor, and would be closed with the old one.
        files = ProcFiles();
        files = open_proc_files();
    }
    return files;
}

/// False: it cannot be read.
bool read_again(const KeptDescriptor& file, std::string& ret_text) {
    return read_whole(file.unchecked(), ret_text) == 0;
}

/// False: it cannot be read, or does not say all of it.
bool read_status(OwnerState& state, const KeptDescriptor& file) {
    std::string text;
    if (read_task_status(file.unchecked(), text) != 0) return false;
    state.credentials.reserve(768);
    for (std::string_view status = text; !status.empty();) {
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
        else if (key == "CapEff")
            state.capabilities = std::strtoull(value, nullptr, 16);
        if (key == "Uid" || key == "Gid" || key == "Groups" || key.starts_with("Cap") ||
            key.starts_with("Seccomp") || key.starts_with("Speculation"))
            state.credentials.append(line).push_back('\n');
        status.remove_prefix(std::min(line.size() + 1, status.size()));
    }
    return true;
}

/// Reads the number in "net:[4026531833]" of each. Returns false where one cannot be read.
bool read_namespaces(Namespaces& ret_namespaces, int directory) {
    for (std::size_t i = 0; i < kNamespaceNames.size(); ++i) {
        std::array<char, 64> link{};
        const ssize_t size =
            ::readlinkat(directory, kNamespaceNames[i], link.data(), link.size() - 1);
        const char* number = size > 0 ? std::strchr(link.data(), '[') : nullptr;
        if (number)
            ret_namespaces[i] = std::strtoull(number + 1, nullptr, 10);
        else if (size >= 0 || errno != ENOENT)
            return false;
    }
    // Every kernel has this one: where it is missing, so is the thread whose directory this is.
    return ret_namespaces[kPidNamespace] != 0;
}

bool is_same(const rlimit& one, const rlimit& other) {
    return one.rlim_cur == other.rlim_cur && one.rlim_max == other.rlim_max;
}

constexpr const char* kSince = " since the template was started";

std::string find_change_of_process(const OwnerState& then, const OwnerState& now, Parent parent) {
    const std::string since = kSince;
    if (const char* name = find_difference(then.settings, now.settings, SettingOf::process))
        return std::string("the owner's ") + name + " has changed" + since;
    if (then.core_dump_filter != now.core_dump_filter)
        return "the owner's filter of core dumps has changed" + since;
    if (then.host_name != now.host_name) return "the host's name has changed" + since;
    const bool is_own = parent == Parent::owner;
    if (is_own && then.session != now.session)
        return "the owner has moved to another session" + since;
    if (then.root_mount != now.root_mount || then.root_device != now.root_device ||
        then.root_inode != now.root_inode)
        return "the owner's root directory or mount namespace has changed" + since;
    if (is_own && then.cgroup != now.cgroup) return "the owner has moved to another cgroup" + since;
    if (is_own && now.oom_score_adjust < then.oom_score_adjust)
        return "the owner's oom_score_adj is lower than the template's";
    for (const std::size_t resource : {RLIMIT_STACK, RLIMIT_AS, RLIMIT_DATA})
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
    for (std::size_t i = 0; i < kNamespaceNames.size(); ++i)
        if (then.namespaces[i] != now.namespaces[i])
            return std::string("the owner's namespace ") + kNamespaceNames[i] + " is another one" +
                   since;
    if (then.security_label != now.security_label)
        return "the owner's security label has changed" + since;
    if (const char* name = find_difference(then.settings, now.settings, SettingOf::thread))
        return std::string("the owner's ") + name + " has changed" + since;
    if (now.nice < then.nice) return "the owner's nice value is lower than the template's";
    return {};
}

/// Reads the root with its mount, as a directory that is bound elsewhere has the same number there.
/// Returns false where it is not known.
bool read_root(OwnerState& state) {
    constexpr unsigned kWanted = STATX_INO | STATX_MNT_ID;
    struct statx root {};
    if (::statx(AT_FDCWD, "/", AT_STATX_DONT_SYNC, kWanted, &root) < 0 ||
        (root.stx_mask & kWanted) != kWanted)
        return false;
    state.root_mount = root.stx_mnt_id;
    state.root_device = std::uint64_t{root.stx_dev_major} << 32 | root.stx_dev_minor;
    state.root_inode = root.stx_ino;
    return true;
}

bool read_host_name(std::string& ret_name) {
    utsname names{};
    if (::uname(&names) < 0) return false;
    ret_name = std::string(names.nodename) + "\n" + names.domainname;
    return true;
}

bool read_limits(OwnerState& state) {
    for (std::uint32_t resource = 0; resource < kResourceLimitCount; ++resource)
        if (::getrlimit(static_cast<__rlimit_resource>(resource), &state.limits[resource]) < 0)
            return false;
    return true;
}

bool read_nice(OwnerState& state) {
    errno = 0;
    state.nice = ::getpriority(PRIO_PROCESS, 0);  // -1 is also a value
    return errno == 0;
}

bool read_affinity(OwnerState& state) {
    const long size =
        ::syscall(SYS_sched_getaffinity, 0, state.affinity.size(), state.affinity.data());
    state.affinity_size = size > 0 ? static_cast<std::size_t>(size) : 0;
    return size > 0;
}

/// Returns what cannot be asked for, or null.
const char* read_by_calls(OwnerState& state) {
    state.signal_mask = signal_mask();
    state.process_group = ::getpgrp();
    state.session = ::getsid(0);
    if (state.session < 0) return "the session (getsid)";
    if (!read_nice(state)) return "the nice value (getpriority)";
    if (!read_host_name(state.host_name)) return "the host's name (uname)";
    if (!read_limits(state)) return "the resource limits (getrlimit)";
    if (!read_affinity(state)) return "the affinity";
    if (!read_root(state)) return "the mount of the root directory (statx)";
    return read_task_settings(state.settings);
}

/// Returns what cannot be read, or an empty text.
std::string read_files(OwnerState& state, const ProcFiles& files) {
    if (!files.are_intact()) {
        state.unknown_error = files.error;
        return "files of /proc, which cannot be opened";
    }
    if (!read_status(state, files.status)) return "/proc/self/status";
    // No line: there are no cgroups here.
    if (!read_again(files.cgroup, state.cgroup)) return "/proc/self/cgroup";
    std::string adjust;
    if (!read_again(files.oom_score_adjust, adjust) || adjust.empty() ||
        !read_again(files.core_dump_filter, state.core_dump_filter) ||
        state.core_dump_filter.empty())
        return "/proc/self/oom_score_adj or coredump_filter";
    state.oom_score_adjust = std::atoi(adjust.c_str());
    if (files.have_labels &&
        (!read_again(files.security_label, state.security_label) || state.security_label.empty()))
        return "/proc/self/attr/current";
    if (!read_namespaces(state.namespaces, files.namespaces.unchecked())) return "/proc/self/ns";
    return {};
}

OwnerState read_state(const ProcFiles& files) {
    OwnerState state;
    state.thread = ::gettid();
    state.unknown = read_files(state, files);
    if (!state.unknown.empty()) return state;
    if (const char* missing = read_by_calls(state)) state.unknown = missing;
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
    for (const OwnerState* state : {&now, &then})
        if (!state->unknown.empty())
            return "of the owner's state this cannot be read: " + state->unknown;
    // The group is one of another pid namespace. It has no number here by which a child could join
    // it.
    if (parent == Parent::owner && now.process_group == 0)
        return "the owner's process group is one of another pid namespace";
    std::string change = find_change_of_process(then, now, parent);
    return change.empty() ? find_change_of_thread(then, now) : change;
}

bool is_of_one_thread(const OwnerState& then, const OwnerState& now) {
    if (now.thread == then.thread || ::tgkill(::getpid(), then.thread, 0) < 0 ||
        !find_change_of_process(then, now, Parent::owner).empty())
        return false;
    // By way of libc, ids change in all threads.
    const std::string path = "/proc/self/task/" + std::to_string(then.thread) + "/status";
    OwnerState other;
    return read_status(other,
                       KeptDescriptor(Descriptor(::open(path.c_str(), O_RDONLY | O_CLOEXEC)))) &&
           other.credentials == then.credentials &&
           other.no_new_privileges == then.no_new_privileges;
}

namespace {

/// Calls `visit` with each part that is plain memory.
template <typename State, typename Visit>
void visit_parts(State& state, Visit visit) {
    visit(state.signals_ignored), visit(state.signal_mask), visit(state.file_mode_mask);
    visit(state.no_new_privileges), visit(state.nice), visit(state.oom_score_adjust);
    visit(state.process_group), visit(state.limits), visit(state.affinity);
    visit(state.affinity_size), visit(state.session), visit(state.capabilities);
    visit(state.root_mount), visit(state.root_device), visit(state.root_inode);
    visit(state.namespaces), visit(state.settings);
}

template <typename State, typename Visit>
void visit_texts(State& state, Visit visit) {
    visit(state.unknown), visit(state.credentials), visit(state.cgroup);
    visit(state.security_label), visit(state.core_dump_filter), visit(state.host_name);
}

}  // namespace

std::string encode_owner_state(const OwnerState& state) {
    FieldWriter writer;
    visit_parts(state, [&](const auto& part) {
        writer.text({reinterpret_cast<const char*>(&part), sizeof part});
    });
    visit_texts(state, [&](const std::string& text) { writer.text(text); });
    return {reinterpret_cast<const char*>(writer.bytes().data()), writer.bytes().size()};
}

OwnerState decode_owner_state(std::string_view text) {
    OwnerState state;
    FieldReader reader(std::as_bytes(std::span(text)));
    bool is_whole = true;
    visit_parts(state, [&](auto& part) {
        const std::string bytes = reader.text();
        is_whole = is_whole && bytes.size() == sizeof part;
        if (!is_whole) return;
        if constexpr (std::is_same_v<decltype(part), bool&>)
            part = bytes[0] != 0;  // any other byte would be no bool at all
        else
            std::memcpy(&part, bytes.data(), sizeof part);
    });
    visit_texts(state, [&](std::string& member) { member = reader.text(); });
    state.affinity_size = std::min(state.affinity_size, state.affinity.size());
    if (!is_whole || !reader.is_whole()) state.unknown = "what another process says of it";
    return state;
}

std::string find_lasting_obstacle(const OwnerState& now, Parent parent) {
    // Compared with itself nothing has changed but what always counts as changed.
    if (std::string obstacle = find_incompatible_change(now, now, parent); !obstacle.empty())
        return obstacle;
    if (now.namespaces[kPidNamespace] != now.namespaces[kChildrensPidNamespace])
        return "the owner's children begin in another pid namespace than its own";
    return {};
}

bool has_children_elsewhere() {
    // Where /proc cannot be read, as in a root without one, children are taken to be here: without
    // a keeper they would outlive their owner.
    Namespaces namespaces{};
    const Descriptor directory(::open("/proc/thread-self/ns", O_PATH | O_DIRECTORY | O_CLOEXEC));
    return directory && read_namespaces(namespaces, directory.get()) &&
           namespaces[kPidNamespace] != namespaces[kChildrensPidNamespace];
}

bool can_look_at(pid_t pid) {
    // The kernel checks here what it checks before it lets a process be traced, except for the mode
    // of Yama.
    const std::string path = "/proc/" + std::to_string(pid) + "/ns/user";
    std::array<char, 64> link;
    return ::readlink(path.c_str(), link.data(), link.size()) > 0;
}

bool is_landlock_there() {
    if (::syscall(SYS_landlock_create_ruleset, nullptr, 0, LANDLOCK_CREATE_RULESET_VERSION) > 0)
        return true;
    // Where asking is forbidden it may have been used before that was.
    return errno != ENOSYS && errno != EOPNOTSUPP;
}

bool may_have_been_confined(const OwnerState& state) {
    const bool may_confine = state.no_new_privileges || (state.capabilities >> CAP_SYS_ADMIN & 1);
    return may_confine && is_landlock_there();
}

void add_differences(const OwnerState& then, const OwnerState& now, RecordContents& contents) {
    RecordHeader& header = contents.header;
    if (!(header.flags & kRecordUmask)) {
        header.flags |=
            kRecordUmask;  // it is always set: preloading may have changed the template's
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
