// This process's connection to its user's service. All templates and threads share it; whoever
// waits first reads for all.
#pragma once

#include <chrono>
#include <condition_variable>
#include <deque>
#include <map>
#include <memory>
#include <mutex>
#include <optional>
#include <set>

#include "channel/service_socket.hpp"
#include "client/leased_image.hpp"
#include "owner/failure.hpp"
#include "owner/owned_sockets.hpp"
#include "owner/waiting.hpp"
#include "protocol/service_bodies.hpp"

namespace warmfork {

/// A parked child of the service that is this client's to use.
struct Lease {
    std::uint64_t child = 0;
    pid_t pid = 0;
    std::shared_ptr<LeasedImage> image;
    Descriptor pidfd;
    OwnedSocket mailbox;
};

class ServiceConnection : public std::enable_shared_from_this<ServiceConnection> {
  public:
    using Clock = WaitClock;
    using Deadline = warmfork::Deadline;

    /// What the service has said to a request: one of these.
    struct Answer {
        std::optional<TemplateFacts> facts;
        std::optional<Lease> lease;
        std::optional<Refusal> refusal;
        std::optional<std::string> managed;
    };

    /// Gets the connection of this process. Unless there is one already it connects, and starts a
    /// service where none listens. Blocks until the service has greeted, ten seconds at the most.
    /// Fails with ETIMEDOUT where it does not answer, and for a while after that at once.
    [[nodiscard]] static Outcome get(std::shared_ptr<ServiceConnection>& ret_connection);

    /// Returns the service's pid.
    pid_t service() const { return static_cast<pid_t>(welcome_.pid); }
    /// Returns what a lease has to show: see read_sight.
    [[nodiscard]] std::string sight() const { return read_sight(welcome_); }
    /// Reads what the service has sent. Returns true where it has gone, or closed the connection.
    [[nodiscard]] bool check_lost();
    /// Has the service not answered, nor said anything since?
    [[nodiscard]] bool hangs() const;

    /// Sends a request and returns its number, for `answer`, which says why where it is 0. Waits
    /// for room, seconds at the most. What this process has no descriptor to send, or may not make
    /// a file of (RLIMIT_FSIZE), is answered by a refusal that says so.
    [[nodiscard]] std::uint64_t request(ServiceKind kind, std::span<const std::byte> body,
                                        std::span<const int> descriptors = {});
    /// Sends something that has no answer. `id` is what it is about.
    void tell(ServiceKind kind, std::uint64_t id, std::span<const std::byte> body);

    /// Waits for the next answer to a request until the deadline. Fails at stage hand_off where the
    /// service is lost (EPIPE), or hangs: it has said nothing for seconds, although it was asked
    /// whether it is there (ETIMEDOUT); until it says something this fails at once. Fails at stage
    /// launch with ETIMEDOUT (the deadline) or EINTR.
    [[nodiscard]] Outcome answer(std::uint64_t request, Deadline deadline, Answer& ret_answer);
    /// Takes an answer that has come; nothing where there is none.
    [[nodiscard]] std::optional<Answer> take_answer(std::uint64_t request);
    /// Says that no more answers to this request are wanted.
    void cancel(std::uint64_t request);

    /// Returns how a child has ended. Returns nothing where that is not known by the deadline, the
    /// connection is lost, or the service hangs.
    [[nodiscard]] std::optional<ExitReport> exit_of(std::uint64_t child, Deadline deadline);
    /// Says that nobody will ask for this child any more.
    void release_child(std::uint64_t child);

  private:
    using Lock = std::unique_lock<std::mutex>;

    ServiceConnection() = default;
    [[nodiscard]] Outcome greet();

    // These are called with the mutex held.
    void drain();
    void take_image(ServiceMessage& message);
    [[nodiscard]] std::optional<Lease> take_lease(ServiceMessage& message);
    void dispatch(ServiceMessage& message);
    void refuse(std::uint64_t request, Stage stage, int error_number, const char* text);
    void drop_lease(std::uint64_t child);
    [[nodiscard]] bool probe_if_silent(Clock::time_point since);
    [[nodiscard]] Failure failure_of_wait() const;
    /// Waits until `done`, the deadline, the loss of the connection, or an interruption; where the
    /// service `is_asked` also until it proves to hang. Returns true where it is done.
    template <typename Done>
    bool wait_until(Lock& lock, Deadline deadline, bool is_asked, Done done);

    const pid_t owner_ = ::getpid();
    OwnedSocket socket_;
    Welcome welcome_;

    mutable std::mutex mutex_;
    std::condition_variable changed_;
    bool somebody_reads_ = false;
    bool is_lost_ = false;
    Clock::time_point heard_at_{};
    std::optional<Clock::time_point> asked_at_;  ///< whether it is there, and not heard since
    bool hangs_ = false;                         ///< has not answered that in time
    bool is_welcome_ = false;
    std::optional<Refusal> refusal_;  ///< of the connection itself
    std::uint64_t last_request_ = 0;
    std::map<std::uint64_t, std::deque<Answer>> answers_;  ///< of requests that are waited for
    std::map<std::uint64_t, std::shared_ptr<LeasedImage>> images_;
    std::set<std::uint64_t> children_;  ///< leased, and not yet ended or released
    std::map<std::uint64_t, ExitReport> exits_;
};

}  // namespace warmfork
