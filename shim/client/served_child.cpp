#include "client/served_child.hpp"

#include <poll.h>
#include <sys/ioctl.h>

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

// How long whoever has inherited the child may take to reap it, in milliseconds: before that the
// kernel does not tell its status.
constexpr int kReapPatience = 2000;

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
    connection_->forget_child(id_);
}

int ServedChild::wait(bool may_wait, ExitReport& ret_report) {
    if (const auto report = connection_->exit_of(id_, may_wait)) {
        ret_report = *report;
        return 0;
    }
    if (!connection_->is_lost()) return EAGAIN;
    // Its last message may have come between the two looks.
    if (const auto report = connection_->exit_of(id_, false)) {
        ret_report = *report;
        return 0;
    }
    // It goes on without the service. Its new parent reaps it; then the kernel may tell the status.
    pollfd polled{pidfd_.get(), POLLIN, 0};
    const int ready = ::poll(&polled, 1, may_wait ? -1 : 0);
    if (ready <= 0) return ready < 0 ? errno : EAGAIN;
    polled.events = 0;
    if (!(polled.revents & POLLHUP)) ::poll(&polled, 1, kReapPatience);
    int status;
    if (!ask_kernel_for_status(pidfd_.get(), status)) return EOWNERDEAD;
    ret_report = {};
    ret_report.status = status;
    return 0;
}

int ServedChild::signal(int number) {
    if (signal_pidfd(pidfd_.get(), number) == 0) return 0;
    if (errno != EPERM) return errno;
    // Another user's: the service may.
    connection_->tell(ServiceKind::signal, id_,
                      FieldWriter().number(static_cast<std::uint64_t>(number)).bytes());
    return 0;
}

}  // namespace warmfork
