// The process that spawns while somebody is killed or stopped, often itself.
#pragma once

#include "kill_matrix/cells.hpp"

/// What it gets from the process that runs the cell.
struct CallerPlan {
    Scene scene;
    bool is_killed;  ///< its children wait, and are to end with it
    int marks;       ///< each child writes its mark there
    int release;     ///< its end of file lets children of Scene::served_exit end
    int output, input;
};

/// Prints a line at each step, and goes on when it reads one:
///
///     ready
///     call 1 OUTCOME TEXT     (a letter as of Cell, or ? for what may never be)
///     call 2 OUTCOME TEXT
///     closed TEXT             (what it has open that it had not before)
///
/// Returns the status to exit with.
int act_as_caller(const CallerPlan& plan);
