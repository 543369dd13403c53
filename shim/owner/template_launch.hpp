// How a template is started: as a program, from the twin of this process's own template, or from a
// parked child of another template. What has been started is a value, and TemplateProcess is what
// is made of it.
#pragma once

#include <unistd.h>

#include <optional>
#include <string>
#include <vector>

#include "owner/born.hpp"
#include "owner/channel_ends.hpp"
#include "owner/launch_plan.hpp"
#include "owner/lifeline.hpp"
#include "owner/owner_state.hpp"
#include "owner/waiting.hpp"

namespace warmfork {

/// How long an interpreter may take from its start to the first line of ours.
inline constexpr std::chrono::seconds kHelloPatience{10};

/// What is known of a template from its start. Nothing of it changes.
struct LaunchFacts {
    ProcessIdentity process;
    pid_t owner = ::getpid();
    WaitClock::time_point started_at = WaitClock::now();
    bool by_main_thread = is_main_thread();
    OwnerState state;                      ///< the owner's
    std::vector<std::string> environment;  ///< the template's
    std::string directory;                 ///< the template's, in full
    std::string program;  ///< the first of its arguments; empty: it was not started as a program
    bool could_look = false;  ///< its owner could look at it: see can_look_at
    bool was_twin = false;    ///< it had nothing to import, as it was a nested template's twin
};

/// The parked child that becomes a layer's template.
struct LayerStart {
    Born child;
    Descriptor reply;  ///< where it says that it has its command
};

/// A template that has been started and is not ready yet. Whoever lets go of this leaves a process
/// behind that ends by itself, and that nobody has reaped.
struct LaunchedTemplate {
    LaunchFacts facts;
    ChannelEnds channel;
    Lifeline lifeline;  ///< until it is ready
    KeptDescriptor pidfd;
    KeptDescriptor log;  ///< the template's stdout and stderr
    Deadline hello_by;   ///< when it has to have proved to be a template; nothing: later
    std::optional<LayerStart> layer;
};

/// Starts a template. It is not ready yet, and nothing is waited for but that it was executed. A
/// failure, of stage launch, leaves no process.
[[nodiscard]] Outcome launch_template(const LaunchPlan& plan, LaunchedTemplate& ret_launched);

/// Makes a template of a parked child of another one, `base`, which goes on to preload on top of
/// its image; the plan's command line is that of this second part. `image_descriptors` are those of
/// `base`. A failure leaves nothing of the child; at stage hand_off it had ended, and another one
/// will do.
[[nodiscard]] Outcome launch_layer(const LaunchPlan& plan, const LaunchFacts& base,
                                   const std::vector<int>& image_descriptors, Born spare,
                                   LaunchedTemplate& ret_launched);

// Both of them use these two.

/// Makes the file for its output, the lifeline, and the channel but for the control socket.
/// `ret_segment` is as of make_channel_ends.
[[nodiscard]] Outcome prepare_launch(const LaunchPlan& plan, LaunchedTemplate& launched,
                                     Descriptor& ret_segment);

/// Notes the directory and the environment that the plan means at this moment.
void note_surroundings(const LaunchPlan& plan, LaunchFacts& facts);

}  // namespace warmfork
