// Where a spawn failed. The numbers are those of warmfork.h and never change their meaning.
#pragma once

#include <cstdint>

namespace warmfork {

enum class Stage : std::uint32_t {
    none = 0,
    record = 1,        ///< the request does not make a valid record
    launch = 2,        ///< the template did not start, or ended while it preloaded
    gate = 3,          ///< the template is not safe to fork
    fork = 4,          ///< the system call that makes the child
    hand_off = 5,      ///< the child ended, or its mailbox broke, before user code
    descriptors = 6,   ///< placing the descriptor map
    session = 7,       ///< setsid, setpgid
    signals = 8,       ///< dispositions and mask
    limits = 9,        ///< resource limits, nice, affinity, umask, oom_score_adj, no_new_privs
    directory = 10,    ///< the working directory
    title = 11,        ///< environment and process title
    exec = 12,         ///< execve of the cold backend
    eligibility = 13,  ///< backend `warm` was asked for what only a cold start can do
    stale = 14,        ///< a file that the image came from has changed
};

/// The stage's name as error texts print it; never null.
constexpr const char* stage_name(Stage stage) {
    switch (stage) {
        case Stage::none:
            return "none";
        case Stage::record:
            return "record";
        case Stage::launch:
            return "launch";
        case Stage::gate:
            return "gate";
        case Stage::fork:
            return "fork";
        case Stage::hand_off:
            return "hand-off";
        case Stage::descriptors:
            return "descriptors";
        case Stage::session:
            return "session";
        case Stage::signals:
            return "signals";
        case Stage::limits:
            return "limits";
        case Stage::directory:
            return "directory";
        case Stage::title:
            return "title";
        case Stage::exec:
            return "exec";
        case Stage::eligibility:
            return "eligibility";
        case Stage::stale:
            return "stale";
    }
    return "unknown";
}

}  // namespace warmfork
