// The table of the kill matrix: who is killed or stopped at which step, in which scene, and what
// the caller sees of it.
#pragma once

#include <string>
#include <string_view>
#include <vector>

/// What the caller does while somebody is killed or stopped.
enum class Scene {
    parked,      ///< spawns from a template that has a parked child
    forked,      ///< spawns from a template that parks none
    launched,    ///< opens a template and spawns from it at once
    cold,        ///< spawns cold, for the first time
    owner_ends,  ///< is killed while warm and cold children of it run
    served,  ///< connects to the service, and spawns from its template, which has a parked child
    served_launch,  ///< the same, and the service has yet to start the template
    served_exit,    ///< waits for a child of the service
    reload,         ///< spawns from the service's template while the service replaces itself
};

enum class Action {
    kill,
    stop,  ///< and goes on as soon as it has stopped
    hang,  ///< stops, and goes on only when the caller's call has returned
};

/// An outcome is a letter, or several where time decides:
///
///   w  warm: the call returns a child that runs once and whose status is its own
///   c  cold: the same, with the reason
///   k  the child was killed after it had begun or was about to: its status says so
///   l  the child's status is lost, which an error says (EOWNERDEAD)
///   e  an error with its stage, and nothing has run
///   +  the caller itself is the one that is killed: nothing outlives it
///
/// Where it is empty there is no such cell.
struct Cell {
    Scene scene;
    const char* point;
    bool is_of_service;  ///< the step is one of the service or its processes, not of the client
    const char* outcomes[3];
};

const std::vector<Cell>& cells();
const char* name_of(Scene scene);
const char* name_of(Action action);
bool is_served(Scene scene);
/// Returns whose step it is: owner, client, daemon, template, child, cold-child, keeper.
std::string party_of(const Cell& cell);
/// Returns the table as the README has it.
std::string table_of_cells();
