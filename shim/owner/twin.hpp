// The parked copy of its template that a child of a nested template has as a child of its own. A
// template that the child itself opens then needs no preloading.
#pragma once

#include <sys/types.h>

#include <optional>
#include <string>
#include <vector>

#include "channel/process_identity.hpp"
#include "owner/owned_sockets.hpp"
#include "owner/owner_state.hpp"
#include "template/image.hpp"

namespace warmfork {

struct LaunchPlan;

struct KeptTwin {
    ProcessIdentity process;
    OwnedSocket channel;
    OwnerState state;  ///< of this process at its birth, which is the twin's
    const ImageFacts* facts = nullptr;
    // Set by take_twin:
    std::vector<std::string> environment;  ///< that the template was started with
    std::string directory;
};

/// Keeps the twin for later, in a newborn child. `facts` must stay. Returns the number under which
/// its channel is open.
int keep_twin(const ProcessIdentity& process, Descriptor channel, const ImageFacts& facts);

/// Takes this process's twin, once, if it is what preloading by `plan` now would give, apart from
/// files that have changed, which it sees itself.
[[nodiscard]] std::optional<KeptTwin> take_twin(const LaunchPlan& plan);

/// Makes the twin a template and a child that every wait of this process sees; it waits for its
/// hello. `log` is for its output. Returns no pid where it has gone, and nothing is left of it.
/// Blocks for as long as the twin takes to fork. Where a child of this process ends meanwhile, its
/// orphans become this process's own children.
[[nodiscard]] ProcessIdentity wake_twin(const KeptTwin& twin, int log);

}  // namespace warmfork
