// A child of the service, as its client has it.
#pragma once

#include <sys/types.h>

#include <atomic>
#include <memory>
#include <optional>

#include "channel/descriptor.hpp"
#include "owner/waiting.hpp"
#include "protocol/service_bodies.hpp"

namespace warmfork {

class ServiceConnection;

/// Reads the exit code in struct pidfd_info of a process that somebody else has reaped, by a pidfd
/// that was opened before. Returns false where it is not known (before Linux 6.15, or it has not
/// been reaped).
[[nodiscard]] bool ask_kernel_for_status(int pidfd, int& ret_status);

class ServedChild {
  public:
    ServedChild(std::shared_ptr<ServiceConnection> connection, std::uint64_t id, pid_t pid,
                Descriptor pidfd);
    ~ServedChild();
    ServedChild(const ServedChild&) = delete;
    ServedChild& operator=(const ServedChild&) = delete;

    int pidfd() const { return pidfd_.get(); }
    /// Returns 0 with the report, or errno: EAGAIN (it runs, or it is not known yet how it has
    /// ended; only if `may_wait` is false), EINTR (see Interruption), EOWNERDEAD (it has ended, and
    /// its status died with the service), ETIMEDOUT (it has ended, and the service hangs, and the
    /// kernel does not tell). It blocks, and is thread safe.
    [[nodiscard]] int wait(bool may_wait, ExitReport& ret_report);
    /// Returns 0 or errno (ESRCH: it has ended).
    [[nodiscard]] int signal(int number);

  private:
    [[nodiscard]] int wait_without_service(bool may_wait, bool is_reaped, ExitReport& ret_report);
    [[nodiscard]] bool find_status(ExitReport& ret_report) const;

    const std::shared_ptr<ServiceConnection> connection_;
    const std::uint64_t id_;
    const pid_t pid_;
    const Descriptor pidfd_;
    std::atomic<WaitClock::time_point> seen_ended_at_{WaitClock::time_point::max()};
    /// When it was first seen that the child has ended and the service is gone.
    std::atomic<WaitClock::time_point> seen_lost_at_{WaitClock::time_point::max()};
};

}  // namespace warmfork
