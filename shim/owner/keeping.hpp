// Children that a keeper looks after, because no template does.
#pragma once

#include <sys/types.h>

#include "owner/cold.hpp"

namespace warmfork {

/// Has the keeper end a child of this process, by pid, when this process ends.
[[nodiscard]] Outcome keep_child(pid_t pid);

/// spawn_cold; a child whose lifetime is its owner's is given to the keeper before it can be lost.
[[nodiscard]] Outcome spawn_kept(ColdPlan& plan, int& ret_pid);

}  // namespace warmfork
