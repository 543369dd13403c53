// The statistics board, as its readers see it: one copy, checked. Reading costs the daemon nothing
// and cannot disturb it; nothing that stands on the board is believed to have any form.
#pragma once

#include <sys/types.h>

#include <array>
#include <chrono>
#include <cstdint>
#include <string>
#include <string_view>
#include <vector>

#include "protocol/board_layout.hpp"

namespace warmfork {

/// Counts by the numbers of warmfork_reason; those beyond this version's are of a newer daemon.
using ColdCounts = std::array<std::uint64_t, kBoardReasons>;

/// What is shown of a template. Texts are UTF-8 without control characters, whatever stood there:
/// they can go to a terminal.
struct TemplateSnapshot {
    std::string name;
    TemplateState state = TemplateState::idle;  ///< not `free`; may be of a newer daemon
    pid_t pid = 0;                              ///< 0: none
    std::uint64_t images = 0, spares = 0, leased = 0, children = 0, starts = 0;
    std::chrono::milliseconds preload{0};
    std::uint64_t resident_kb = 0, proportional_kb = 0;  ///< 0: not known
    std::chrono::milliseconds retry_in{0};
    std::string error;
    std::string base;  ///< the template that it extends; empty: none
    ColdCounts cold{};
    LatencyCounts latency{};  ///< of warm spawns; latency_total() is their number
    std::uint64_t latency_sum_us = 0;
};

struct ClientSnapshot {
    pid_t pid = 0;
    uid_t uid = 0;
    std::string command;
    std::uint64_t children = 0, leases = 0, spawns = 0;
    std::uint64_t memory = 0;  ///< bytes; 0: not known
    std::uint64_t cpu_us = 0;  ///< 0: not known
};

/// Each entry is as it was at one moment; two entries may be of different ones.
struct BoardSnapshot {
    pid_t pid = 0;
    std::uint64_t start_ticks = 0;  ///< with the pid: this daemon and no other
    std::string release;
    std::string socket;  ///< the path that it listens on; empty: not known
    std::chrono::nanoseconds uptime{0};
    std::uint64_t clients_connected = 0, children = 0, spawns = 0;
    ColdCounts cold{};
    std::uint64_t templates_not_shown = 0, clients_not_shown = 0;
    std::vector<TemplateSnapshot> templates;  ///< by name
    std::vector<ClientSnapshot> clients;      ///< by pid
    /// Entries that were being changed all the time, or whose daemon stopped in the middle of a
    /// change.
    std::uint64_t unreadable = 0;
};

/// Reads the board of a daemon. This never waits for that daemon. Returns 0 or errno: ENOENT (there
/// is no board, or it is just being made), ESRCH (the daemon is dead, this is what it left), EACCES
/// (not to be read by this user, or not made by `uid`), EPROTO (not a board, or one that is cut
/// short meanwhile), EPROTONOSUPPORT (another version's), EAGAIN (it is changed all the time),
/// EINVAL (no name for an instance).
[[nodiscard]] int read_board(uid_t uid, std::string_view instance, BoardSnapshot& ret_snapshot);

/// Returns the instances of a user that have something like a board, the one without a name first.
/// Whether it is one, and its daemon lives, read_board tells.
[[nodiscard]] std::vector<std::string> find_instances(uid_t uid);

}  // namespace warmfork
