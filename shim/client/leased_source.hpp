// A template of the service, by its name. Its children are the service's; a spawn is a hand-off to
// a parked child that is leased to this process, most often ahead of need.
#pragma once

#include <deque>
#include <mutex>

#include "client/service_connection.hpp"
#include "owner/image_source.hpp"

namespace warmfork {

/// How long a service that is there may take to answer: longer than it waits for an image, so that
/// it is the one to say why there is none.
inline constexpr auto kServicePatience = kWarmPatience + kStartPatience;

class LeasedSource : public OpenTemplate {
  public:
    explicit LeasedSource(std::string name);
    ~LeasedSource() override;

    /// Asks the service what it is. Fails with ENOENT where there is no such template.
    [[nodiscard]] Outcome open();

    Outcome find_program(TemplateProgram& ret_program, ColdReason& ret_cold) override;
    Outcome choose(const Wish& wish, std::unique_ptr<ChosenImage>& ret_image,
                   ColdReason& ret_cold) override;
    /// A lease is of one parked child.
    std::uint32_t most_at_once() const override { return 1; }
    Outcome run_own_command(const Request& request, Spawned& ret_spawned) override;
    void end(const Spawned& child) override;
    void free_descriptors() override;
    void note_cold(warmfork_reason reason) override;

    bool is_usable() const override { return owner_ == ::getpid(); }
    Outcome wait_ready(Deadline deadline) override;
    Outcome wait_parked(std::uint32_t count, Deadline deadline) override;
    Outcome report(std::string& ret_json) override;
    /// Returns ENOTSUP: the service's configuration says how many.
    int set_spares(std::uint32_t, std::uint32_t) override { return ENOTSUP; }
    pid_t pid() override;
    std::string progress() override { return {}; }
    std::uint32_t parked() override;
    /// The service counts them.
    std::uint64_t starts() const override { return 0; }
    void leave_unchecked() override {}

  private:
    using Lock = std::unique_lock<std::mutex>;
    using Connection = std::shared_ptr<ServiceConnection>;
    class Image;
    struct Wanted {
        std::vector<std::string> options;
        bool is_isolated = false;
        std::vector<std::string> environment;
        bool operator==(const Wanted&) const = default;
    };
    struct PrefetchedLease {  ///< a lease that came before it was needed
        Lease lease;
        bool has_parked = false;
    };

    [[nodiscard]] Outcome connect(Connection& ret_connection, TemplateFacts* ret_facts = nullptr);
    /// Returns the last one that was connected. After `find_program` there is one.
    [[nodiscard]] Connection current();
    [[nodiscard]] Outcome take_lease(const Wish& wish, Connection& ret_connection, Lease& ret_lease,
                                     ColdReason& ret_cold);
    [[nodiscard]] Outcome lease(const Connection& connection, const Wanted& wanted,
                                const Wish& wish, bool is_detached, bool may_take_prefetched,
                                Lease& ret_lease, ColdReason& ret_cold);
    /// Asks for one lease. The request's number.
    [[nodiscard]] std::uint64_t ask(ServiceConnection& connection, const Wanted& wanted,
                                    std::uint64_t flags) const;
    /// Waits for the answer to that until the deadline. After that the request is still to be
    /// cancelled.
    [[nodiscard]] static Outcome await(ServiceConnection& connection, std::uint64_t id,
                                       Deadline deadline, Lease& ret_lease, ColdReason& ret_cold);
    [[nodiscard]] Outcome await_prefetched(Deadline deadline);
    [[nodiscard]] ColdReason find_limit(const Failure& failure);
    [[nodiscard]] Wanted plain() const;
    void note_spawn(const Connection& connection);

    // These are called with the mutex held.
    void want(const Wanted& wanted);
    void collect_prefetched();
    void prefetch();
    void drop_prefetched();
    void give_back(Lease lease);

    const pid_t owner_;
    const std::string name_;

    std::mutex mutex_;
    std::shared_ptr<ServiceConnection> connection_;
    TemplateFacts facts_;
    Wanted last_;  ///< what the leases that came ahead are good for
    std::deque<PrefetchedLease> prefetched_;
    std::uint64_t prefetch_request_ = 0;  ///< the request that more come by; 0: none
    std::uint64_t awaited_ = 0;  ///< the request that `wait_parked` has left for its next call
    std::uint64_t coming_ = 0;   ///< so many are still to come by it
    std::uint32_t prefetch_count_ = 0;
    std::uint64_t spawns_ = 0;
};

/// Makes a request for whoever looks after the service: "list", "start", "stop", "reload". `name`
/// is a template's, or empty. Blocks until it has been answered; the answer is JSON.
[[nodiscard]] Outcome ask_to_manage(ServiceConnection& connection, const std::string& verb,
                                    const std::string& name, std::string& ret_json);

}  // namespace warmfork
