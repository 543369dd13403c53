// One cell of the kill matrix, or one round by chance: the scene, the death in it, and what comes
// of it.
#pragma once

#include <cstdint>
#include <optional>
#include <string>

#include "kill_matrix/cells.hpp"

struct CellPlan {
    Cell cell;
    Action action;
    /// Where it is set, random numbers from it say who is killed or stopped, and when, instead of
    /// the step.
    std::optional<std::uint32_t> seed;
};

struct CellResult {
    std::string outcome;  ///< a letter as of Cell
    std::string text;     ///< the caller's words for it
    std::string wrong;    ///< lines; empty: all is as it has to be
};

/// Runs it in a process of its own, which adopts whatever is left by others. Returns that process
/// and the pipe on which it writes what `read_result` reads.
struct RunningCell {
    pid_t pid;
    int output;
};
RunningCell start_cell(const CellPlan& plan);
CellResult read_result(const std::string& text);
