#include "service/clean_state.hpp"

#include <fcntl.h>
#include <fmt/format.h>
#include <linux/capability.h>
#include <linux/keyctl.h>
#include <sched.h>
#include <signal.h>
#include <sys/personality.h>
#include <sys/prctl.h>
#include <sys/resource.h>
#include <sys/stat.h>
#include <sys/syscall.h>
#include <unistd.h>

#include <algorithm>
#include <array>
#include <cerrno>
#include <cstring>
#include <fstream>
#include <map>
#include <sstream>

#include "channel/descriptor.hpp"
#include "channel/proc_file.hpp"
#include "owner/task_controls.hpp"

namespace warmfork::service {
namespace {

// systemd gives this to what it starts.
constexpr mode_t kUmask = 022;
constexpr int kTimerSlack = 50'000;  // nanoseconds: the kernel's default

const std::map<std::string, int> kLimits{
    {"Max cpu time", RLIMIT_CPU},           {"Max file size", RLIMIT_FSIZE},
    {"Max data size", RLIMIT_DATA},         {"Max stack size", RLIMIT_STACK},
    {"Max core file size", RLIMIT_CORE},    {"Max processes", RLIMIT_NPROC},
    {"Max locked memory", RLIMIT_MEMLOCK},  {"Max address space", RLIMIT_AS},
    {"Max file locks", RLIMIT_LOCKS},       {"Max pending signals", RLIMIT_SIGPENDING},
    {"Max msgqueue size", RLIMIT_MSGQUEUE}, {"Max realtime priority", RLIMIT_RTPRIO},
    {"Max nice priority", RLIMIT_NICE},     {"Max realtime timeout", RLIMIT_RTTIME}};

rlim_t limit_of(const std::string& text) {
    return text == "unlimited" ? RLIM_INFINITY : std::strtoull(text.c_str(), nullptr, 10);
}

void note(bool has_failed, const char* what, std::vector<std::string>& left) {
    if (has_failed) left.push_back(fmt::format("{} ({})", what, std::strerror(errno)));
}

/// Restores soft limits, as far as the hard ones allow; open files are the service's own matter.
void restore_limits(std::vector<std::string>& left) {
    std::ifstream file("/proc/1/limits");
    note(!file, "its soft limits", left);
    for (std::string line; std::getline(file, line);) {
        const auto known = std::ranges::find_if(
            kLimits, [&](const auto& limit) { return line.starts_with(limit.first + " "); });
        if (known == kLimits.end()) continue;
        std::istringstream fields(line.substr(known->first.size()));
        std::string soft;
        fields >> soft;
        const auto resource = static_cast<__rlimit_resource>(known->second);
        rlimit limit{};
        if (::getrlimit(resource, &limit) < 0) continue;
        const rlim_t wanted = limit_of(soft);
        limit.rlim_cur = std::min(wanted, limit.rlim_max);
        if (::setrlimit(resource, &limit) < 0 || limit.rlim_cur < wanted)
            left.push_back(fmt::format("the hard limit \"{}\"", known->first));
    }
}

// Of linux/sched.h: with the greatest number for a value, the clamp is as if nobody had set it.
constexpr std::uint64_t kUtilizationClamp = 0x60;
constexpr std::uint32_t kUnset = 0xffffffff;

/// The nice value is left as it is. Returns false, with errno, where that is forbidden.
bool restore_scheduling() {
    SchedulingAttributes attributes{};
    attributes.size = sizeof attributes;
    attributes.policy = SCHED_OTHER;
    attributes.flags = kUtilizationClamp;
    attributes.nice = ::getpriority(PRIO_PROCESS, 0);
    attributes.least_utilization = attributes.most_utilization = kUnset;
    if (::syscall(SYS_sched_setattr, 0, &attributes, 0) == 0) return true;
    if (errno != EOPNOTSUPP) return false;
    attributes.flags = 0;  // this kernel has no clamp
    return ::syscall(SYS_sched_setattr, 0, &attributes, 0) == 0;
}

/// A setting of prctl(2): how it is asked for, what it is where nobody has changed it, and the call
/// that makes it so.
struct Control {
    const char* name;
    int get, clean;
    int set;  ///< 0: nothing takes it back
    unsigned long value;
};

constexpr Control kControls[] = {
    {"its timer slack", PR_GET_TIMERSLACK, kTimerSlack, PR_SET_TIMERSLACK, kTimerSlack},
    {"its ban on huge pages", PR_GET_THP_DISABLE, 0, PR_SET_THP_DISABLE, 0},
    {"its merging of equal pages", kGetMemoryMerging, 0, kSetMemoryMerging, 0},
    {"its machine check policy", PR_MCE_KILL_GET, PR_MCE_KILL_DEFAULT, PR_MCE_KILL,
     PR_MCE_KILL_CLEAR},
    {"its I/O flusher flag", kGetIoFlusher, 0, kSetIoFlusher, 0},
    {"its securebits", PR_GET_SECUREBITS, 0, PR_SET_SECUREBITS, 0},
    {"its ban on writable code", kGetWriteExecuteBan, 0, 0, 0},
    {"no_new_privs", PR_GET_NO_NEW_PRIVS, 0, 0, 0},
    {"its seccomp filters", PR_GET_SECCOMP, 0, 0, 0}};

void restore(const Control& control, std::vector<std::string>& left) {
    const int value = ::prctl(control.get, 0, 0, 0, 0);
    // To see the I/O flusher's flag takes the privilege that setting it takes.
    if (value == control.clean || (value < 0 && is_absent_setting(errno)) ||
        (value < 0 && errno == EPERM && control.get == kGetIoFlusher))
        return;
    if (value >= 0 && !control.set)
        left.emplace_back(control.name);
    else
        note(value < 0 || ::prctl(control.set, control.value, 0, 0, 0) < 0, control.name, left);
}

/// Takes back what the process has asked of the processor against speculation.
void restore_speculation(std::vector<std::string>& left) {
    struct Speculation {
        unsigned long which, clean;
    };
    for (const auto& [which, clean] : {Speculation{PR_SPEC_STORE_BYPASS, PR_SPEC_ENABLE},
                                       {PR_SPEC_INDIRECT_BRANCH, PR_SPEC_ENABLE},
                                       {kFlushOfDataCache, PR_SPEC_DISABLE}}) {
        const int value = ::prctl(PR_GET_SPECULATION_CTRL, which, 0, 0, 0);
        const bool is_chosen = value > 0 && (value & int(PR_SPEC_PRCTL)) && !(value & int(clean));
        note(is_chosen && ::prctl(PR_SET_SPECULATION_CTRL, which, clean, 0, 0) < 0,
             "its speculation controls", left);
    }
}

void note_core_cookie(std::vector<std::string>& left) {
    std::uint64_t cookie = 0;
    if (::prctl(kCoreScheduling, 0, 0, 0, &cookie) == 0 && cookie)
        left.emplace_back("its core scheduling cookie");
}

/// Returns what the first process of the system has in this file of /proc, or where that cannot be
/// read, what the kernel gives it.
std::string text_of_first_process(const std::string& name, const char* otherwise) {
    const Descriptor file(::open(("/proc/1/" + name).c_str(), O_RDONLY | O_CLOEXEC));
    std::string text;
    if (!file || read_whole(file.get(), text) || text.empty()) return otherwise;
    text.erase(text.find_last_not_of('\n') + 1);
    return text;
}

bool write_proc_file(const std::string& name, const std::string& text) {
    const Descriptor file(::open(("/proc/self/" + name).c_str(), O_WRONLY | O_CLOEXEC));
    return file && ::write(file.get(), text.data(), text.size()) >= 0;
}

/// Keys of the client's session are not for what other clients start. The user's own are found by
/// way of the session's, as after a login. Returns false, with errno, where that is forbidden.
bool leave_session_keyring() {
    if (::syscall(SYS_keyctl, KEYCTL_JOIN_SESSION_KEYRING, nullptr) < 0) return errno == ENOSYS;
    return ::syscall(SYS_keyctl, KEYCTL_LINK, KEY_SPEC_USER_KEYRING, KEY_SPEC_SESSION_KEYRING) == 0;
}

/// Other users than root have none, unless somebody has given them to the client.
bool drop_capabilities() {
    if (::geteuid() == 0) return true;
    __user_cap_header_struct header{_LINUX_CAPABILITY_VERSION_3, 0};
    const __user_cap_data_struct none[_LINUX_CAPABILITY_U32S_3]{};
    return ::prctl(PR_CAP_AMBIENT, PR_CAP_AMBIENT_CLEAR_ALL, 0, 0, 0) == 0 &&
           ::syscall(SYS_capset, &header, none) == 0;
}

/// That of SIGPIPE is this program's own choice. The kernel refuses SIGKILL and SIGSTOP, libc the
/// two that are its own.
void restore_signals() {
    for (int number = 1; number <= SIGRTMAX; ++number)
        if (number != SIGPIPE) ::signal(number, SIG_DFL);
    sigset_t none;
    ::sigemptyset(&none);
    ::sigprocmask(SIG_SETMASK, &none, nullptr);
}

}  // namespace

std::vector<std::string> return_to_clean_state() {
    std::vector<std::string> left;
    restore_signals();
    ::umask(kUmask);
    note(!restore_scheduling(), "its scheduling class", left);
    note(::getpriority(PRIO_PROCESS, 0) != 0 && ::setpriority(PRIO_PROCESS, 0, 0) < 0,
         "its nice value", left);
    note(::syscall(SYS_ioprio_set, kIoPriorityOfProcess, 0, 0) < 0, "its I/O priority", left);
    std::array<unsigned char, 1024> processors;
    processors.fill(0xff);  // the kernel leaves out those that there are not
    note(::syscall(SYS_sched_setaffinity, 0, processors.size(), processors.data()) < 0,
         "its processors", left);
    note(::syscall(SYS_set_mempolicy, 0 /* MPOL_DEFAULT */, nullptr, 0) < 0 && errno != ENOSYS,
         "its memory policy", left);
    note(::personality(PER_LINUX) < 0, "its personality", left);
    note(!write_proc_file("oom_score_adj", text_of_first_process("oom_score_adj", "0")),
         "its oom_score_adj", left);
    // It is shown without the 0x that it takes.
    note(!write_proc_file("coredump_filter", "0x" + text_of_first_process("coredump_filter", "33")),
         "its filter of core dumps", left);
    for (const Control& control : kControls) restore(control, left);
    restore_speculation(left);
    note_core_cookie(left);
    restore_limits(left);
    note(!leave_session_keyring(), "its session keyring", left);
    note(!drop_capabilities(), "its capabilities", left);
    return left;
}

}  // namespace warmfork::service
