// What a warmfork_template is: the definition of a template, the process that serves it now, and
// the choice of a backend for each request.
#pragma once

#include <array>
#include <atomic>
#include <memory>
#include <mutex>

#include "owner/eligibility.hpp"
#include "owner/request.hpp"
#include "owner/template_process.hpp"

namespace warmfork {

/// A child that has been spawned.
struct Spawned {
    pid_t pid = 0;
    bool is_warm = false;
    ColdReason reason;
};

/// What WARMFORK_BACKEND says; auto where it says nothing.
[[nodiscard]] warmfork_backend default_backend();

/// Serves a request cold, without any template.
[[nodiscard]] Outcome spawn_without_template(const Request& request, std::uint32_t count,
                                             ColdReason reason, std::vector<Spawned>& ret_spawned);

class TemplateHandle {
  public:
    using Deadline = TemplateProcess::Deadline;

    struct Definition {
        LaunchPlan launch;
        bool is_python = false;
        std::string program;  ///< full path
        warmfork_backend backend = WARMFORK_BACKEND_DEFAULT;
    };

    explicit TemplateHandle(Definition definition);
    ~TemplateHandle();

    /// -ECHILD's question: is this still the process that opened it?
    bool is_usable() const { return owner_ == ::getpid(); }

    /// Starts a process unless one runs.
    [[nodiscard]] Outcome start();
    [[nodiscard]] Outcome wait_ready(Deadline deadline);
    [[nodiscard]] Outcome wait_parked(std::uint32_t count, Deadline deadline);
    [[nodiscard]] Outcome spawn(const Request& request, std::uint32_t count,
                                std::vector<Spawned>& ret_spawned);
    [[nodiscard]] Outcome report(std::string& ret_json);
    [[nodiscard]] int set_spares(std::uint32_t least, std::uint32_t most);
    pid_t pid();
    std::uint32_t parked();
    void counts(warmfork_counts& ret_counts) const;

  private:
    using Process = std::shared_ptr<TemplateProcess>;

    [[nodiscard]] Outcome running_process(Process& ret_process);
    Process current();
    void retire(const Process& process);
    void forget(const Process& process);

    [[nodiscard]] warmfork_backend choose_backend(const Request& request) const;
    [[nodiscard]] ColdReason static_reason(const Request& request, TemplateProcess& process) const;
    [[nodiscard]] Outcome spawn_warm(const Request& request, std::uint32_t count,
                                     warmfork_backend backend, ColdReason& ret_cold,
                                     std::vector<Spawned>& ret_spawned);
    [[nodiscard]] Outcome spawn_in(TemplateProcess& process, const OwnerState& state,
                                   const Request& request, std::uint32_t count,
                                   std::vector<Spawned>& ret_spawned);
    [[nodiscard]] Outcome spawn_by_hand_off(TemplateProcess& process,
                                            std::span<const std::byte> record,
                                            std::span<const int> descriptors, Lifetime lifetime,
                                            bool& ret_done, Spawned& ret_spawned);
    [[nodiscard]] Outcome spawn_cold_counted(const Request& request, std::uint32_t count,
                                             const ColdReason& reason,
                                             std::vector<Spawned>& ret_spawned);

    const pid_t owner_;
    Definition definition_;
    std::mutex mutex_;
    Process process_;
    std::atomic<bool> is_restarting_{
        false};  ///< `process_` replaces one that was retired: auto does not wait

    std::atomic<std::uint64_t> handed_off_{0}, forked_{0}, cold_{0}, starts_{0};
    std::array<std::atomic<std::uint64_t>, WARMFORK_REASON_COUNT> cold_by_reason_{};
};

}  // namespace warmfork
