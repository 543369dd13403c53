// What a warmfork_template is: its images, and the choice of a backend for each request.
#pragma once

#include <array>
#include <atomic>

#include "owner/backend.hpp"
#include "owner/eligibility.hpp"
#include "owner/hand_off.hpp"
#include "owner/images.hpp"
#include "owner/request.hpp"
#include "owner/shadowing.hpp"
#include "owner/spawn_source.hpp"

namespace warmfork {

class TemplateHandle : public SpawnSource {
  public:
    struct Definition {
        ImageSet::Definition images;
        warmfork_backend backend = WARMFORK_BACKEND_DEFAULT;
        warmfork_on_stale on_stale = WARMFORK_STALE_COLD;
    };

    explicit TemplateHandle(Definition definition);

    bool is_usable() const override { return owner_ == ::getpid(); }

    /// Starts a process unless one runs. Where none can be had for what this process is, and spawns
    /// may be cold, that is no failure: they say why.
    [[nodiscard]] Outcome start();
    Outcome wait_ready(Deadline deadline) override;
    Outcome wait_parked(std::uint32_t count, Deadline deadline) override;
    Outcome spawn(const Request& request, std::uint32_t count,
                  std::vector<Spawned>& ret_spawned) override;
    Outcome explain(const Request& request, ColdReason& ret_reason) override;
    Outcome report(std::string& ret_json) override;
    int set_spares(std::uint32_t least, std::uint32_t most) override {
        return images_.set_spares(least, most);
    }
    pid_t pid() override;
    /// Of the first image.
    std::string progress() override;
    std::uint32_t parked() override { return images_.parked(); }
    void counts(warmfork_counts& ret_counts) const override;
    void leave_unchecked() override {
        is_unchecked_ = true;
        images_.leave_unchecked();
    }

  private:
    using Process = ImageSet::Process;
    using Freshness = TemplateProcess::Freshness;

    [[nodiscard]] Outcome ready_image(Deadline deadline, Process& ret_process);
    [[nodiscard]] ColdReason find_reason(const Request& request, const PythonCommand& command,
                                         TemplateProcess& process);
    [[nodiscard]] std::string find_change(const OwnerState& state, TemplateProcess& process,
                                          bool& ret_is_lasting);
    [[nodiscard]] ColdReason check_state(const OwnerState& state, const Process& process,
                                         bool& ret_is_replaced);
    [[nodiscard]] Outcome spawn_warm(const Request& request, std::uint32_t count,
                                     warmfork_backend backend, ColdReason& ret_cold,
                                     std::vector<Spawned>& ret_spawned);
    [[nodiscard]] Outcome spawn_in(TemplateProcess& process, Freshness freshness,
                                   const OwnerState& state, const Request& request,
                                   std::uint32_t count, ColdReason& ret_cold,
                                   std::vector<Spawned>& ret_spawned);
    [[nodiscard]] static Outcome await_forked(TemplateProcess& process, std::uint64_t id,
                                              std::size_t index, Born& child);
    [[nodiscard]] Outcome spawn_on_command(TemplateProcess& process, const ChildRecord& record,
                                           const Request& request, std::uint32_t count,
                                           std::vector<Spawned>& ret_spawned);
    [[nodiscard]] Outcome spawn_by_hand_off(TemplateProcess& process, const ChildRecord& record,
                                            Lifetime lifetime, bool& ret_done,
                                            Spawned& ret_spawned);
    [[nodiscard]] Outcome spawn_cold_counted(const Request& request, std::uint32_t count,
                                             const ColdReason& reason,
                                             std::vector<Spawned>& ret_spawned);

    const pid_t owner_;
    const warmfork_backend backend_;
    const warmfork_on_stale on_stale_;
    const bool is_python_;
    const std::string program_;
    bool is_unchecked_ = false;
    ImageSet images_;
    ShadowSearch shadows_;

    std::atomic<std::uint64_t> handed_off_{0}, forked_{0}, cold_{0};
    std::array<std::atomic<std::uint64_t>, WARMFORK_REASON_COUNT> cold_by_reason_{};
};

}  // namespace warmfork
