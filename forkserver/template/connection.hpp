// The template's end of the channel to its owner: the hello that opens it, and all that comes with
// it.
#pragma once

#include <string>
#include <vector>

#include "channel/descriptor.hpp"
#include "channel/segment.hpp"
#include "protocol/messages.hpp"

namespace warmfork {

/// What the owner's hello brought.
struct Connection {
    Descriptor control;
    Segment segment;
    Descriptor command_bell;
    Descriptor completion_bell;
    Descriptor owner_pidfd;
    Descriptor lifeline;  ///< the owner has it too, and its other end: see outlive_lifeline
    Descriptor inotify;
    OwnerHello hello{};
    std::string keeper_program;
    std::vector<std::string> allowed;
};

/// Tells the owner what this process is, unless it has been told on this channel. Returns 0 or
/// errno.
[[nodiscard]] int say_hello(int channel);

/// Receives the owner's hello over `control`, attaches what comes with it, and answers. Blocks
/// until it is there, or the owner has ended. Returns 0 or errno.
[[nodiscard]] int open_connection(Descriptor control, Connection& ret_connection);

/// From now on the end of the owner does not kill this process, which watches it itself: it may
/// have children to end. It keeps its end open: without anyone who has that, the owner's other one
/// would still raise the signal.
void outlive_lifeline(const Connection& connection);

}  // namespace warmfork
