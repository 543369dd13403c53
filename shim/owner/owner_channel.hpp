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

    /// Has nobody in this process closed what is not theirs?
    [[nodiscard]] bool is_intact() const;
    /// What both sides see of each other without a frame.
    [[nodiscard]] SegmentLayout& layout() const { return ends_.segment.layout(); }
    /// Rings when a completion has come, after `announce_sleep`. -1: closed by somebody.
    [[nodiscard]] int completion_bell() const { return ends_.completion_bell.get(); }
    [[nodiscard]] const ChannelEnds& ends() const { return ends_; }

    // Out.

    /// Puts a command into the ring, and rings for nobody. As RingWriter::push.
    [[nodiscard]] int push(const FrameHeader& header, std::span<const std::byte> payload = {}) {
        return commands_.push(header, payload);
    }
    /// Descriptors of the command that is pushed next. Returns 0, EAGAIN where the socket has no
    /// room, or another errno.
    [[nodiscard]] int send_descriptors(std::uint64_t id, std::span<const int> descriptors);
    void ring();
    void ring_if_asleep();
    [[nodiscard]] bool is_peer_asleep() const { return commands_.peer_sleeps(); }
    [[nodiscard]] bool has_room(std::size_t size) const { return commands_.has_room(size); }
    /// How much the template has taken of what was pushed; all of it: `is_drained`.
    [[nodiscard]] std::uint64_t taken() const { return commands_.taken(); }
    [[nodiscard]] bool is_drained() const { return commands_.drained(); }
    /// False: the application has closed the bell.
    [[nodiscard]] bool can_ring() const { return bool(ends_.command_bell); }
    /// The end of file wakes the template as well, which ends.
    void hang_up() { ends_.control.reset(); }

    // In.

    /// The next completion, copied out of the ring, with its payload in `payload`. See RingReader.
    [[nodiscard]] Pop pop(FrameHeader& ret_header) {
        return completions_.pop(ret_header, payload_);
    }
    [[nodiscard]] std::span<const std::byte> payload() const { return payload_; }
    /// To be called when some have been taken: the template may wait for the room.
    void tell_of_room();

    /// Reads the template's hello, if it has come. Sets what the next two tell.
    void receive_hello();
    /// It runs, and is a template: of this version where `hello_error` is empty.
    [[nodiscard]] bool has_said_hello() const { return has_said_hello_; }
    [[nodiscard]] const std::string& hello_error() const { return hello_error_; }
    /// The other end was closed, and no hello had come.
    [[nodiscard]] bool has_hung_up() const { return has_hung_up_; }
    /// The next mailbox that has come; after the hello. False: there is none. A message may come
    /// without its mailbox, where no number is free.
    [[nodiscard]] bool receive_mailbox(MailboxMessage& ret_message, OwnedSocket& ret_mailbox);

    // Waiting.

    /// From now on the bell rings for each completion, and when there is more room. To be followed
    /// by a look at both. `silence` first, where the bell may have rung.
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
