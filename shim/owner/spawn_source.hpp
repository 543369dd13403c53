// What a warmfork_template is to the C ABI: somewhere to spawn from.
#pragma once

#include <memory>
#include <string>
#include <vector>

#include "owner/eligibility.hpp"
#include "owner/failure.hpp"
#include "owner/request.hpp"
#include "owner/template_process.hpp"

namespace warmfork {

class ServedChild;

/// A child that has been spawned.
struct Spawned {
    pid_t pid = 0;
    bool is_warm = false;
    ColdReason reason;
    std::shared_ptr<ServedChild> served;  ///< of a service; null: this process's own
    std::uint64_t mark = 0;               ///< of this process's own

    ProcessIdentity identity() const { return {pid, mark}; }
};

class SpawnSource {
  public:
    using Deadline = TemplateProcess::Deadline;

    virtual ~SpawnSource() = default;

    /// -ECHILD's question: is this still the process that opened it?
    [[nodiscard]] virtual bool is_usable() const = 0;
    /// For the owner's own environment, without options.
    [[nodiscard]] virtual Outcome wait_ready(Deadline deadline) = 0;
    [[nodiscard]] virtual Outcome wait_parked(std::uint32_t count, Deadline deadline) = 0;
    [[nodiscard]] virtual Outcome spawn(const Request& request, std::uint32_t count,
                                        std::vector<Spawned>& ret_spawned) = 0;
    /// How `spawn` would serve it. NONE: warm.
    [[nodiscard]] virtual Outcome explain(const Request& request, ColdReason& ret_reason) = 0;
    [[nodiscard]] virtual Outcome report(std::string& ret_json) = 0;
    [[nodiscard]] virtual int set_spares(std::uint32_t least, std::uint32_t most) = 0;
    [[nodiscard]] virtual pid_t pid() = 0;
    /// See TemplateProcess::progress.
    [[nodiscard]] virtual std::string progress() = 0;
    [[nodiscard]] virtual std::uint32_t parked() = 0;
    virtual void counts(warmfork_counts& ret_counts) const = 0;
    /// For the benchmark: what the checks of environment, freshness and shadowing cost.
    virtual void leave_unchecked() = 0;
};

}  // namespace warmfork
