// A copy of the template that a child keeps as a child of its own, frozen in the moment of the
// child's birth. When the child becomes an owner it is woken and goes on as that owner's template.
#pragma once

#include "channel/process_identity.hpp"
#include "template/child.hpp"
#include "template/clone.hpp"

namespace warmfork {

struct TwinBirth {
    ProcessIdentity process;  ///< in the child: the twin; no pid: it could not be made
    Descriptor channel;       ///< in the child: to the twin; in the twin: its control socket to be
    bool is_this_process = false;  ///< this is the twin, woken: a template without handlers run yet
};

/// Must be called in a newborn child before any fork handler. Returns at once in the child, and in
/// the twin when it is woken; by then the twin is a child that every wait sees. Until then none
/// does without __WALL, and the twin ends when the child dies or closes the channel. In the twin
/// nothing is open but the standard streams, what preloading opened, and the channel.
[[nodiscard]] TwinBirth leave_twin(const CloneContext& clone, const ChildPlan& plan);

}  // namespace warmfork
