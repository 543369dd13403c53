// A spawn from beginning to end, whichever source its image comes from. spawner.cpp can be read
// from top to bottom; docs/spawn.md tells what comes before and after.
#pragma once

#include <array>
#include <atomic>

#include "owner/backend.hpp"
#include "owner/image_source.hpp"

namespace warmfork {

/// What whoever opened the template has said for all its spawns.
struct SpawnPolicy {
    warmfork_backend backend = WARMFORK_BACKEND_DEFAULT;
    warmfork_on_stale on_stale = WARMFORK_STALE_COLD;
};

class Spawner {
  public:
    /// `source` must live as long as this object.
    Spawner(ImageSource& source, SpawnPolicy policy) : source_(source), policy_(policy) {}

    /// Spawns all or none. Blocks until the children have started. It is thread safe.
    [[nodiscard]] Outcome spawn(const Request& request, std::uint32_t count,
                                std::vector<Spawned>& ret_spawned);
    /// Says how `spawn` would serve it. Reason NONE means warm.
    [[nodiscard]] Outcome explain(const Request& request, ColdReason& ret_reason);
    /// Sets the counts of the children so far; template_starts stays as it is.
    void counts(warmfork_counts& ret_counts) const;

  private:
    struct Attempt;

    [[nodiscard]] Outcome spawn_together(const Request& request, std::uint32_t count,
                                         std::vector<Spawned>& ret_spawned);
    [[nodiscard]] Outcome spawn_warm(const Request& given, std::uint32_t count, bool insists,
                                     ColdReason& ret_cold, std::vector<Spawned>& ret_spawned);
    [[nodiscard]] Outcome spawn_from(ChosenImage& image, Attempt& attempt, ColdReason& ret_cold,
                                     std::vector<Spawned>& ret_spawned);
    [[nodiscard]] Outcome hand_off_to_parked(ChosenImage& image, const ChildRecord& record,
                                             Attempt& attempt, std::vector<Spawned>& ret_spawned);
    [[nodiscard]] static Outcome hand_off(ChosenImage& image, const ChildRecord& record,
                                          Born& parked);
    [[nodiscard]] Outcome spawn_cold(const Request& request, std::uint32_t count,
                                     const ColdReason& reason, std::vector<Spawned>& ret_spawned);

    [[nodiscard]] ColdReason find_reason(ChosenImage& image, const Attempt& attempt);
    [[nodiscard]] ColdReason compare_owner(ChosenImage& image, const OwnerState& now,
                                           Attempt& attempt);
    [[nodiscard]] ColdReason judge(ChosenImage& image, const Failure& failure, Attempt& attempt);

    ImageSource& source_;
    const SpawnPolicy policy_;
    ShadowSearch shadows_;
    std::atomic<std::uint64_t> handed_off_{0}, forked_{0}, cold_{0};
    std::array<std::atomic<std::uint64_t>, WARMFORK_REASON_COUNT> cold_by_reason_{};
};

}  // namespace warmfork
