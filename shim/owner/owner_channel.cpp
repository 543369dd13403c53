#include "owner/owner_channel.hpp"

#include <poll.h>
#include <sys/socket.h>

#include "channel/deadline.hpp"
#include "channel/doorbell.hpp"

namespace warmfork {

OwnerChannel::OwnerChannel(ChannelEnds ends)
    : ends_(std::move(ends)),
      commands_(layout().command_ring, layout().command_bytes),
      completions_(layout().completion_ring, layout().completion_bytes) {}

bool OwnerChannel::is_intact() const {
    return ends_.control.is_intact() && ends_.command_bell && ends_.completion_bell;
}

int OwnerChannel::send_descriptors(std::uint64_t id, std::span<const int> descriptors) {
    const DescriptorMessage message{id};
    return send_message(ends_.control.get(), bytes_of(message), {}, descriptors, MSG_DONTWAIT);
}

void OwnerChannel::ring() {
    warmfork::ring(ends_.command_bell.get());
}

void OwnerChannel::ring_if_asleep() {
    if (commands_.peer_sleeps()) ring();
}

void OwnerChannel::tell_of_room() {
    if (commands_.peer_waits_for_room()) ring();
}

void OwnerChannel::receive_hello() {
    TemplateHello hello{};
    ReceivedMessage received;
    if (receive_message(ends_.control.get(), std::as_writable_bytes(std::span(&hello, 1)), {},
                        MSG_DONTWAIT, received))
        return;
    if (received.size == 0) {
        has_hung_up_ = true;
        return;
    }
    has_said_hello_ = true;
    if (received.size == sizeof hello && hello.magic == kHelloMagic &&
        hello.version == kProtocolVersion)
        return;
    hello_error_ = "the template speaks version " + std::to_string(hello.version) +
                   " of the protocol, this library version " + std::to_string(kProtocolVersion);
}

bool OwnerChannel::receive_mailbox(MailboxMessage& ret_message, OwnedSocket& ret_mailbox) {
    ReceivedMessage received;
    return receive_owned(ends_.control.get(), std::as_writable_bytes(std::span(&ret_message, 1)),
                         ret_mailbox, received) == 0 &&
           received.size == sizeof ret_message;
}

void OwnerChannel::silence() {
    warmfork::silence(ends_.completion_bell.get());
}

OwnerChannel::Woken OwnerChannel::sleep(Lock& lock, Deadline deadline,
                                        const KeptDescriptor& pidfd) {
    Woken woken;
    if (somebody_polls_) {
        if (deadline)
            polled_.wait_until(lock, *deadline);
        else
            polled_.wait(lock);
        return woken;
    }
    somebody_polls_ = true;
    completions_.going_to_sleep(rooms_wanted_ > 0 ? WakeFor::frames_and_room : WakeFor::frames);
    if (completions_.empty()) {
        // What comes after the hello belongs to a frame, and waits for it.
        const int awaited = has_said_hello_ || has_hung_up_ ? -1 : ends_.control.get();
        pollfd polled[3] = {{ends_.completion_bell.get(), POLLIN, 0},
                            {pidfd.get(), POLLIN, 0},
                            {awaited, POLLIN, 0}};
        lock.unlock();
        ::poll(polled, 3, milliseconds_until(deadline));
        lock.lock();
        if (polled[0].revents) silence();
        woken.by_end = polled[1].revents != 0;
        woken.by_message = polled[2].revents & POLLIN;
    }
    completions_.awake();
    somebody_polls_ = false;
    polled_.notify_all();
    return woken;
}

}  // namespace warmfork
