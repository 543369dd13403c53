// A process is made the ordinary way here: vfork and exec. This is the cold backend, and how
// templates are started.
#pragma once

#include <span>
#include <string>
#include <vector>

#include "channel/process_identity.hpp"
#include "owner/failure.hpp"
#include "owner/lifeline.hpp"
#include "protocol/record.hpp"

namespace warmfork {

struct ColdPlan {
    RecordView record{};  ///< how the child is to be; see view_values
    std::span<const char*const> arguments, environment;
    std::vector<int> sources;  ///< descriptors of the owner, [i] for record.descriptor_targets[i]
    std::vector<std::string> candidates;  ///< full paths to try, in order
    std::uint64_t signals_default = 0;    ///< ignored signals that go back to the default action
    std::uint64_t signal_mask = 0;
    int keeper = -1;       ///< socket of the keeper that is to look after the child; -1: nobody
    int keeper_error = 0;  ///< set where that cannot; the spawn has failed then
    const Lifeline* lifeline = nullptr;  ///< what the child is tied to; null: nothing
};

struct ColdProcess {
    ProcessIdentity identity;
    Descriptor pidfd;  ///< empty: no number is free for it
};

/// Starts a process as the plan says. Returns when exec has succeeded; on failure no process is
/// left. The calling thread is suspended meanwhile (vfork).
[[nodiscard]] Outcome spawn_cold(ColdPlan& plan, ColdProcess& ret_process);

/// Kills a child of this process that nobody else knows of, and reaps it. Nothing happens where
/// somebody else has reaped it.
void end_child(const ProcessIdentity& child);

/// Returns what execvp would try for `program` with this PATH; one candidate if it has a slash.
[[nodiscard]] std::vector<std::string> executable_candidates(const std::string& program,
                                                             std::span<char* const> environment);

}  // namespace warmfork
