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
    Descriptor inotify;
    OwnerHello hello{};
    std::string keeper_program;
    std::vector<std::string> allowed;
};

/// Tells the owner what this process is, unless it has been told on this channel. Returns 0 or
/// errno.
[[nodiscard]] int say_hello(int channel);

/// Receives the owner's hello over `control`, attaches what comes with it, and answers. Blocks
/// until it is there and its send has ended, or the owner has ended. Returns 0 or errno.
[[nodiscard]] int open_connection(Descriptor control, Connection& ret_connection);

/// From now on the end of the owner, however it comes, raises SIGKILL for this process, whatever
/// this process does meanwhile; so does every message on the socket. This is for as long as there
/// are no children that end with their owner in good order.
void end_with_owner_by_signal(int control);
void stop_ending_by_signal(int control);

}  // namespace warmfork
