// The parked copy of its template that a child of a nested template has as a child of its own: what
// it opens as a template itself needs no preloading.
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

/// In a newborn child: keeps the twin for later. `facts` must stay. Returns the number under which
/// its channel is open.
int keep_twin(const ProcessIdentity& process, Descriptor channel, const ImageFacts& facts);

/// This process's twin, if it is what preloading by `plan` now would give, apart from files that
/// have changed, which it sees itself. Taken once.
[[nodiscard]] std::optional<KeptTwin> take_twin(const LaunchPlan& plan);

/// Makes the twin a template and a child that every wait of this process sees; it waits for its
/// hello. `log`: for its output. No pid: it has gone, and nothing is left of it. Blocks for as long
/// as the twin takes to fork. Orphans of this process's children that happen to arise meanwhile
/// become its own children.
[[nodiscard]] ProcessIdentity wake_twin(const KeptTwin& twin, int log);

}  // namespace warmfork
