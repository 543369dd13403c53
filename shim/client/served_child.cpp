#include "client/served_child.hpp"

#include <poll.h>
#include <sys/ioctl.h>
#include <unistd.h>

#include <cstdlib>
#include <fstream>
#include <iterator>
#include <string>

#include "client/service_connection.hpp"

namespace warmfork {
namespace {

/// struct pidfd_info of linux/pidfd.h since 6.15, which older headers lack.
struct PidfdInfo {
    std::uint64_t mask, cgroup_id;
    std::uint32_t pid, tgid, ppid, ruid, rgid, euid, egid, suid, sgid, fsuid, fsgid;
    std::int32_t exit_code;
};
static_assert(sizeof(PidfdInfo) == 64);
constexpr std::uint64_t kPidfdInfoExit = 1u << 3;
constexpr unsigned long kPidfdGetInfo = _IOWR(0xff, 11, PidfdInfo);

// How long whoever has inherited the child may take to reap it: before that the kernel does not
// tell its status.
constexpr std::chrono::seconds kReapPatience{2};

// How long the service may take to tell how a child has ended.
constexpr std::chrono::seconds kReportPatience{10};

/// Reads the status of a child of the service that nobody has reaped, as the service hangs, or has
/// been killed and left it to somebody else. Returns false where the kernel does not tell it to
/// this process, or it has been reaped.
bool read_status_of_zombie(pid_t pid, int pidfd, int& ret_status) {
    const std::string process = "/proc/" + std::to_string(pid);
    // The kernel says 0 to those that it may not tell, by the same rule by which it tells this link
    // or not.
    char link[64];
    if (::readlink((process + "/ns/user").c_str(), link, sizeof link) < 0) return false;
    std::ifstream file(process + "/stat");
    const std::string text((std::istreambuf_iterator<char>(file)), {});
    const std::size_t name_end = text.rfind(')'), last = text.find_last_of(' ');
    // It has not been reaped after it was read, so it was this process, and no other that has its
    // number now.
    if (name_end == std::string::npos || last < name_end || signal_pidfd(pidfd, 0) < 0)
        return false;
    ret_status = std::atoi(text.c_str() + last);  // field 52 of proc(5)
    return true;
}

}  // namespace

bool ask_kernel_for_status(int pidfd, int& ret_status) {
    PidfdInfo info{};
    info.mask = kPidfdInfoExit;
    if (pidfd < 0 || ::ioctl(pidfd, kPidfdGetInfo, &info) < 0 || !(info.mask & kPidfdInfoExit))
        return false;
    ret_status = info.exit_code;
    return true;
}

ServedChild::ServedChild(std::shared_ptr<ServiceConnection> connection, std::uint64_t id, pid_t pid,
                         Descriptor pidfd)
    : connection_(std::move(connection)), id_(id), pid_(pid), pidfd_(std::move(pidfd)) {}

ServedChild::~ServedChild() {
    connection_->release_child(id_);
}

int ServedChild::wait(bool may_wait, ExitReport& ret_report) {
    if (const auto report = connection_->exit_of(id_, WaitClock::now())) {
        ret_report = *report;
        return 0;
    }
    pollfd polled{pidfd_.get(), POLLIN, 0};
    if (poll_until(std::span(&polled, 1), may_wait ? Deadline() : WaitClock::now()) == 0)
        return was_interrupted() ? EINTR : EAGAIN;
    // It has ended, which the service tells at once, unless it has gone or hangs.
    auto never = WaitClock::time_point::max();
    seen_ended_at_.compare_exchange_strong(never, WaitClock::now());
    const auto told_by = seen_ended_at_.load() + kReportPatience;
    if (const auto report = connection_->exit_of(id_, may_wait ? told_by : WaitClock::now())) {
        ret_report = *report;
        return 0;
    }
    if (!connection_->check_lost()) {
        if (was_interrupted()) return EINTR;
        if (WaitClock::now() < told_by && !connection_->hangs()) return EAGAIN;
        // The service may have stopped between the child's end and its message.
        return find_status(ret_report) ? 0 : ETIMEDOUT;
    }
    // The service's last message may have come between the two looks.
    if (const auto report = connection_->exit_of(id_, WaitClock::now())) {
        ret_report = *report;
        return 0;
    }
    return wait_without_service(may_wait, polled.revents & POLLHUP, ret_report);
}

/// Tells the status of a child that has ended after the service. `is_reaped`: by its new parent.
int ServedChild::wait_without_service(bool may_wait, bool is_reaped, ExitReport& ret_report) {
    if (find_status(ret_report)) return 0;
    // Where it is a zombie that this process may not look at, the kernel tells once it is reaped.
    auto never = WaitClock::time_point::max();
    seen_lost_at_.compare_exchange_strong(never, WaitClock::now());
    const auto reaped_by = seen_lost_at_.load() + kReapPatience;
    pollfd polled{pidfd_.get(), 0, 0};
    if (!is_reaped &&
        poll_until(std::span(&polled, 1), may_wait ? reaped_by : WaitClock::now()) == 0) {
        if (was_interrupted()) return EINTR;
        if (WaitClock::now() < reaped_by) return EAGAIN;
    }
    return find_status(ret_report) ? 0 : EOWNERDEAD;
}

/// Finds out from the kernel how the child has ended, which it has. Returns false where that does
/// not tell.
bool ServedChild::find_status(ExitReport& ret_report) const {
    int status;
    if (!read_status_of_zombie(pid_, pidfd_.get(), status) &&
        !ask_kernel_for_status(pidfd_.get(), status))
        return false;
    ret_report = {};
    ret_report.status = status;
    return true;
}

int ServedChild::signal(int number) {
    if (signal_pidfd(pidfd_.get(), number) == 0) return 0;
    if (errno != EPERM) return errno;
    // The child is another user's, and the service may signal it.
    connection_->tell(ServiceKind::signal, id_,
                      FieldWriter().number(static_cast<std::uint64_t>(number)).bytes());
    return 0;
}

}  // namespace warmfork
