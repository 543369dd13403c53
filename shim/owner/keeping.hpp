// Children that a keeper looks after, because no template does.
#pragma once

#include "owner/cold.hpp"

namespace warmfork {

/// Has a keeper end a child of this process when this process ends.
[[nodiscard]] Outcome give_child_to_keeper(const ProcessIdentity& child);

/// Does what give_child_to_keeper does; where that cannot be now it is tried again at the next call
/// of this process.
void give_child_to_keeper_when_possible(const ProcessIdentity& child);

/// Does what spawn_cold does, and gives a child whose lifetime is its owner's to a keeper before it
/// can be lost. Where no keeper can be started for lack of processes, memory or descriptors, the
/// child is started all the same, and given to a keeper as soon as there is one.
[[nodiscard]] Outcome spawn_with_keeper(ColdPlan& plan, ColdProcess& ret_process);

/// Replaces keepers that have been killed, and tells the new ones what those looked after. Must be
/// called whenever this process spawns; costs nothing where it has no keeper. Never waits for
/// another thread's spawn.
void look_after_keepers();

}  // namespace warmfork
