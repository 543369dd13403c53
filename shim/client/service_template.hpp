// A template of the service, by its name. Its children are the service's; a spawn is a hand-off to
// a parked child that is leased to this process, most often ahead of need.
#pragma once

#include <array>
#include <atomic>
#include <deque>
#include <mutex>

#include "client/service_connection.hpp"
#include "owner/python_command.hpp"
#include "owner/shadowing.hpp"
#include "owner/spawn_source.hpp"

namespace warmfork {

class ServiceTemplate : public SpawnSource {
  public:
    explicit ServiceTemplate(std::string name, warmfork_backend backend);
    ~ServiceTemplate() override;

    /// Asks the service what it is. ENOENT: there is no such template.
    [[nodiscard]] Outcome open();

    bool is_usable() const override { return owner_ == ::getpid(); }
    Outcome wait_ready(Deadline deadline) override;
    Outcome wait_parked(std::uint32_t count, Deadline deadline) override;
    Outcome spawn(const Request& request, std::uint32_t count,
                  std::vector<Spawned>& ret_spawned) override;
    Outcome explain(const Request& request, ColdReason& ret_reason) override;
    Outcome report(std::string& ret_json) override;
    /// ENOTSUP: the service's configuration says how many.
    int set_spares(std::uint32_t, std::uint32_t) override { return ENOTSUP; }
    pid_t pid() override;
    std::string progress() override { return {}; }
    std::uint32_t parked() override;
    void counts(warmfork_counts& ret_counts) const override;
    void leave_unchecked() override {}

  private:
    using Lock = std::unique_lock<std::mutex>;
    struct Wanted {
        std::vector<std::string> options;
        bool is_isolated = false;
        std::vector<std::string> environment;
        bool operator==(const Wanted&) const = default;
    };
    struct LeasedAhead {  ///< a lease that came before it was needed
        Lease lease;
        bool has_parked = false;
    };

    [[nodiscard]] Outcome connect(std::shared_ptr<ServiceConnection>& ret_connection);
    [[nodiscard]] Outcome spawn_one(const Request& request, warmfork_backend backend,
                                    Spawned& ret_spawned);
    [[nodiscard]] Outcome spawn_warm(const Request& request, bool may_wait, ColdReason& ret_cold,
                                     Spawned& ret_spawned);
    [[nodiscard]] Outcome spawn_fixed(const Request& request, Spawned& ret_spawned);
    [[nodiscard]] Outcome lease(const std::shared_ptr<ServiceConnection>& connection,
                                const Wanted& wanted, bool may_wait, bool is_detached,
                                bool may_take_ahead, Lease& ret_lease, ColdReason& ret_cold);
    /// Asks for one lease. The request's number.
    [[nodiscard]] std::uint64_t ask(ServiceConnection& connection, const Wanted& wanted,
                                    std::uint64_t flags) const;
    /// The answer to that, until the deadline: then the request is still to be forgotten.
    [[nodiscard]] static Outcome await(ServiceConnection& connection, std::uint64_t id,
                                       Deadline deadline, Lease& ret_lease, ColdReason& ret_cold);
    [[nodiscard]] ColdReason select(const Request& request, PythonCommand& ret_command,
                                    Wanted& ret_wanted) const;
    [[nodiscard]] ColdReason find_reason(const Request& request, const PythonCommand& command,
                                         LeasedImage& image);
    [[nodiscard]] ColdReason find_limit(const Outcome& failure);
    [[nodiscard]] ColdReason find_state_reason(const LeasedImage& image, const OwnerState& now);
    [[nodiscard]] Wanted plain() const;

    // With the mutex held:
    void want(const Wanted& wanted);
    void take_in_ahead();
    void ask_ahead();
    void drop_ahead();
    void give_back(Lease lease);

    const pid_t owner_;
    const std::string name_;
    const warmfork_backend backend_;
    ShadowSearch shadows_;

    std::mutex mutex_;
    std::shared_ptr<ServiceConnection> connection_;
    TemplateFacts facts_;
    Wanted last_;  ///< what the leases that came ahead are good for
    std::deque<LeasedAhead> ahead_;
    std::uint64_t asked_ahead_ = 0;  ///< the request that more come by; 0: none
    std::uint64_t awaited_ = 0;      ///< the request that `wait_parked` has left for its next call
    std::uint64_t coming_ = 0;       ///< so many are still to come by it
    std::uint32_t wanted_ahead_ = 0;
    std::uint64_t spawns_ = 0;

    std::atomic<std::uint64_t> handed_off_{0}, cold_{0};
    std::array<std::atomic<std::uint64_t>, WARMFORK_REASON_COUNT> cold_by_reason_{};
};

/// A request of whoever looks after the service: "list", "start", "stop", "reload". `name`: of a
/// template, or empty. Blocks until it has been answered; the answer is JSON.
[[nodiscard]] Outcome ask_to_manage(ServiceConnection& connection, const std::string& verb,
                                    const std::string& name, std::string& ret_json);

}  // namespace warmfork
