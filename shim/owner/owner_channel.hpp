// The owner's side of a template's channel: what it sends, what it receives, and how it sleeps
// until there is something. It knows no frame's meaning.
#pragma once

#include <condition_variable>
#include <cstdint>
#include <mutex>
#include <span>
#include <string>
#include <vector>

#include "channel/ring.hpp"
#include "owner/channel_ends.hpp"
#include "owner/waiting.hpp"
#include "protocol/messages.hpp"

namespace warmfork {

/// Everything but `ring_if_asleep` and the numbers is called with one mutex held, that of the
/// template, which `sleep` lets go of meanwhile. Nothing else blocks.
class OwnerChannel {
  public:
    using Lock = std::unique_lock<std::mutex>;

    explicit OwnerChannel(ChannelEnds ends);

    /// Are all its descriptors still its own? The application may have closed some.
    [[nodiscard]] bool is_intact() const;
    /// Returns what both sides see of each other without a frame.
    [[nodiscard]] SegmentLayout& layout() const { return ends_.segment.layout(); }
    /// Returns what rings when a completion has come, after `announce_sleep`, or -1 where somebody
    /// has closed it.
    [[nodiscard]] int completion_bell() const { return ends_.completion_bell.get(); }
    [[nodiscard]] const ChannelEnds& ends() const { return ends_; }

    // Out.

    /// Puts a command into the ring, and rings for nobody. Returns what RingWriter::push does.
    [[nodiscard]] int push(const FrameHeader& header, std::span<const std::byte> payload = {}) {
        return commands_.push(header, payload);
    }
    /// Sends descriptors of the command that is pushed next. Returns 0, EAGAIN where the socket has
    /// no room, or another errno.
    [[nodiscard]] int send_descriptors(std::uint64_t id, std::span<const int> descriptors);
    void ring();
    void ring_if_asleep();
    [[nodiscard]] bool is_peer_asleep() const { return commands_.peer_sleeps(); }
    [[nodiscard]] bool has_room(std::size_t size) const { return commands_.has_room(size); }
    /// Returns how much the template has taken of what was pushed. `is_drained`: it has taken all.
    [[nodiscard]] std::uint64_t taken() const { return commands_.taken(); }
    [[nodiscard]] bool is_drained() const { return commands_.drained(); }
    /// Returns false where the application has closed the bell.
    [[nodiscard]] bool can_ring() const { return bool(ends_.command_bell); }
    /// Closes the control socket. The end of file wakes the template as well, which ends.
    void hang_up() { ends_.control.reset(); }

    // In.

    /// Copies the next completion out of the ring, with its payload in `payload`. See RingReader.
    [[nodiscard]] Pop pop(FrameHeader& ret_header) {
        return completions_.pop(ret_header, payload_);
    }
    [[nodiscard]] std::span<const std::byte> payload() const { return payload_; }
    /// Must be called when some have been taken: the template may wait for the room.
    void tell_of_room();

    /// Reads the template's hello, if it has come. Sets what the next two tell.
    void receive_hello();
    /// Does it run, and is it a template? It is of this version where `hello_error` is empty.
    [[nodiscard]] bool has_said_hello() const { return has_said_hello_; }
    [[nodiscard]] const std::string& hello_error() const { return hello_error_; }
    /// Was the other end closed before a hello had come?
    [[nodiscard]] bool has_hung_up() const { return has_hung_up_; }
    /// Receives, after the hello, the next mailbox that has come. Returns false where there is
    /// none. A message may come without its mailbox, where no number is free.
    [[nodiscard]] bool receive_mailbox(MailboxMessage& ret_message, OwnedSocket& ret_mailbox);

    // Waiting.

    /// Has the bell ring from now on for each completion, and when there is more room. Both must be
    /// looked at after this call. Where the bell may have rung, call `silence` first.
    void announce_sleep() { completions_.going_to_sleep(WakeFor::frames_and_room); }
    void silence();

    struct Woken {
        bool by_end = false;      ///< the process behind `pidfd` has ended
        bool by_message = false;  ///< a hello may be there
    };
    /// Sleeps until there is something to be looked at, or the deadline. Of several threads one
    /// polls for all.
    [[nodiscard]] Woken sleep(Lock& lock, Deadline deadline, const KeptDescriptor& pidfd);
    [[nodiscard]] bool is_polled() const { return somebody_polls_; }

    /// While one lives, sleepers wake for room too.
    class RoomWanted {
      public:
        explicit RoomWanted(OwnerChannel& channel) : channel_(channel) { ++channel_.rooms_wanted_; }
        ~RoomWanted() { --channel_.rooms_wanted_; }
        RoomWanted(const RoomWanted&) = delete;
        RoomWanted& operator=(const RoomWanted&) = delete;

      private:
        OwnerChannel& channel_;
    };

  private:
    ChannelEnds ends_;
    RingWriter commands_;
    RingReader completions_;
    std::vector<std::byte> payload_;
    bool has_said_hello_ = false;
    bool has_hung_up_ = false;
    std::string hello_error_;

    std::condition_variable polled_;
    bool somebody_polls_ = false;
    std::uint32_t rooms_wanted_ = 0;
};

}  // namespace warmfork
