// How a template ends, and what becomes of its children.
#include <fmt/format.h>
#include <poll.h>

#include <cstring>

#include "channel/stopping_point.hpp"
#include "keeper/keeper.hpp"
#include "template/template_server.hpp"

namespace warmfork {

unsigned long TemplateServer::owner_stack() const {
    const std::string file = fmt::format("/proc/{}/stat", connection_.hello.owner_pid);
    return read_image_addresses(file.c_str()).start_stack;
}

/// Notes that the owner's end of the channel was closed without a word: by its death, by exec, or
/// by an application that closes descriptors it did not open. Only in the last case do its children
/// go on.
void TemplateServer::note_channel_end() {
    owner_is_gone_ = true;
    pollfd polled{connection_.owner_pidfd.get(), POLLIN, 0};
    const bool is_alive = ::poll(&polled, 1, 0) == 0;
    if (is_alive && owner_stack_ != 0 && owner_stack() == owner_stack_) shut_down_ = true;
}

/// Notes the last hand-offs. The owner tells of each before it sends the record, so whatever it
/// handed off before it died stands in the ring.
void TemplateServer::note_last_hand_offs() {
    FrameHeader header;
    while (commands_.pop(header, payload_) == Pop::frame) {
        if (header.kind == FrameKind::handed_off) hand_off(header);
        if (header.kind == FrameKind::shut_down) shut_down_ = true;
    }
}

/// Ends the spares. Those whose record has arrived are children by now; that they were handed off
/// stands in the ring.
void TemplateServer::end_spares() {
    for (Child& child : children_)
        if (child.state == State::parked) give_up(child);
    note_last_hand_offs();
}

std::vector<GuardedChild> TemplateServer::running_children() {
    std::vector<GuardedChild> children;
    // An owner that lives on under another program (exec) sends no parent-death signal.
    pollfd owner{connection_.owner_pidfd.get(), POLLIN, 0};
    const bool told_by_kernel =
        (connection_.hello.flags & kHelloFromMainThread) && ::poll(&owner, 1, 0) == 1;
    for (Child& child : children_)
        if (child.state == State::running && child.lifetime == Lifetime::owner && !child.ended)
            children.push_back({std::move(child.pidfd), told_by_kernel});
    return children;
}

Decision TemplateServer::end() {
    const bool is_abandoned = outbox_.broken() || owner_is_gone_;
    if (is_abandoned) stopping_point("template.owner-gone");
    end_spares();
    // The owner closed the channel in good order, whether it has ended since or not.
    if (shut_down_)
        leave_children_to_keeper();
    else
        end_processes(running_children());
    return {Decision::Action::end};
}

void TemplateServer::leave_children_to_keeper() {
    const std::vector<GuardedChild> children = running_children();
    std::vector<int> pidfds;
    for (const GuardedChild& child : children) pidfds.push_back(child.pidfd.get());
    if (int error = leave_to_keepers(connection_.keeper_program, connection_.owner_pidfd.get(),
                                     pidfds, connection_.hello.flags & kHelloFromMainThread))
        fmt::print(stderr, "warmfork: cannot start {} to end children with their owner: {}\n",
                   connection_.keeper_program, std::strerror(error));
}

}  // namespace warmfork
