// The template says hello, passes the gate, and then serves its channel until it is told to stop or
// its owner is gone. It has one thread and one poll loop.
#pragma once

#include <optional>
#include <string>

#include "channel/descriptor.hpp"
#include "template/child.hpp"
#include "template/host.hpp"

namespace warmfork {

/// Why this process cannot serve. The owner knows it too, where there is one.
struct ServeFailure {
    int error_number = 0;  ///< ENOTCONN: not started as a template; EBUSY: the gate
    std::string text;
};

/// Tells the owner, before the preloading, that this is the program which it wanted to start, and
/// not another one that came in its place. `channel` is a layer's, or -1 in a program that was
/// started as a template. Returns 0 or errno (ENOTCONN: it was not).
[[nodiscard]] int announce_template(int channel);

/// Was this program started as a template that does not serve yet? Children of templates were not.
[[nodiscard]] bool is_launched_as_template();

/// Opens the channel that the preload library found in the environment, and passes the gate. From
/// then on all signals are blocked, except while the template sleeps. `host` must stay. Blocks
/// until the owner has said hello.
[[nodiscard]] std::optional<ServeFailure> open_channel(Host& host);

/// Does the same by the channel that came with its command, in a child that is to become a template
/// and has preloaded on top of the image that it came from. What that image depends on, this one
/// does too.
[[nodiscard]] std::optional<ServeFailure> open_layer(Host& host, Descriptor channel);

/// Serves what has been opened. Blocks. Returns false in the template, when it has ended, with the
/// signal mask as it was before; and true in each child, with all signals blocked still, unless the
/// host runs user code itself. No frame in between owns anything of the template.
[[nodiscard]] bool serve(ChildCommand& ret_command);

}  // namespace warmfork
