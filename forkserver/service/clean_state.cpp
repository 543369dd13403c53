#include "service/clean_state.hpp"

#include <fmt/format.h>
#include <sched.h>
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

namespace warmfork::service {
namespace {

// systemd gives this to what it starts.
constexpr mode_t kUmask = 022;
constexpr unsigned long kTimerSlack = 50'000;  // nanoseconds: the kernel's default
// IOPRIO_WHO_PROCESS of ioprio_set(2). linux/ioprio.h of Linux 6.1.192 is no C++.
constexpr int kIoPriorityOfProcess = 1;

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

/// Restores soft limits, as far as the hard ones allow; open files are the service's own matter.
void restore_limits(std::vector<std::string>& left) {
    std::ifstream file("/proc/1/limits");
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

void note(bool has_failed, const char* what, std::vector<std::string>& left) {
    if (has_failed) left.push_back(fmt::format("{} ({})", what, std::strerror(errno)));
}

}  // namespace

std::vector<std::string> return_to_clean_state() {
    std::vector<std::string> left;
    ::umask(kUmask);
    const sched_param none{};
    note(::sched_getscheduler(0) != SCHED_OTHER && ::sched_setscheduler(0, SCHED_OTHER, &none) < 0,
         "its scheduling class", left);
    note(::getpriority(PRIO_PROCESS, 0) > 0 && ::setpriority(PRIO_PROCESS, 0, 0) < 0,
         "its nice value", left);
    note(::syscall(SYS_ioprio_set, kIoPriorityOfProcess, 0, 0) < 0, "its I/O priority", left);
    std::array<unsigned char, 1024> processors;
    processors.fill(0xff);  // the kernel leaves out those that there are not
    note(::syscall(SYS_sched_setaffinity, 0, processors.size(), processors.data()) < 0,
         "its processors", left);
    note(::prctl(PR_SET_TIMERSLACK, kTimerSlack) < 0, "its timer slack", left);
    note(::personality(PER_LINUX) < 0, "its personality", left);
    if (::prctl(PR_GET_NO_NEW_PRIVS, 0, 0, 0, 0) > 0) left.push_back("no_new_privs");
    if (::prctl(PR_GET_SECCOMP) > 0) left.push_back("its seccomp filters");
    restore_limits(left);
    return left;
}

}  // namespace warmfork::service
