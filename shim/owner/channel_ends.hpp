// The owner's ends of a template's channel: how they are made, and how the template gets its own.
#pragma once

#include "channel/segment.hpp"
#include "owner/failure.hpp"
#include "owner/kept_descriptor.hpp"
#include "owner/launch_plan.hpp"
#include "owner/lifeline.hpp"
#include "owner/owned_sockets.hpp"

namespace warmfork {

struct ChannelEnds {
    OwnedSocket control;
    Segment segment;
    KeptDescriptor command_bell, completion_bell;
    KeptDescriptor inotify;  ///< the template watches with it, this side looks whether events wait
    bool has_inotify = false;      ///< there was one at the start
    KeptDescriptor mounts;         ///< of this side's own: each open file tells of a change once
    KeptDescriptor shown_segment;  ///< read-only, for other processes; of a template that is shared
};

/// Makes all but the control socket, whose other end has to get to the template. `ret_segment` is
/// the segment's memfd, which is for the template alone.
[[nodiscard]] Outcome make_channel_ends(bool is_shared, ChannelEnds& ret_ends,
                                        Descriptor& ret_segment);

/// Makes the control socket with the hello in it. `ret_far` is the template's end.
[[nodiscard]] Outcome connect(const LaunchPlan& plan, const Descriptor& segment,
                              const Lifeline& lifeline, ChannelEnds& ends, OwnedSocket& ret_far);

/// Writes the hello into the control socket before the template exists; it reads it when it serves.
[[nodiscard]] Outcome queue_hello(const LaunchPlan& plan, const Descriptor& segment,
                                  const Lifeline& lifeline, const ChannelEnds& ends);

/// Is the calling thread the first one of its process? A parent-death signal comes when the thread
/// ends that made the child, and only the first one is certain to live as long as the process.
[[nodiscard]] bool is_main_thread();

}  // namespace warmfork
