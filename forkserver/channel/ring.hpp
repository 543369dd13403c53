// The two views of a ring in shared memory. A view keeps its own index privately and publishes it;
// of the peer's index it uses nothing but the distance, and only after checking it. Neither view
// blocks, locks or allocates more than a frame.
#pragma once

#include <cstddef>
#include <cstdint>
#include <span>
#include <vector>

#include "protocol/layout.hpp"

namespace warmfork {

/// What a consumer waits for while it sleeps, as the value of its `asleep` word.
enum class WakeFor : std::uint32_t {
    frames = 1,           ///< wake it after a push
    frames_and_room = 2,  ///< and after a pop from the ring that it writes
};

class RingWriter {
  public:
    RingWriter(RingHeader& header, std::span<std::byte> bytes) : header_(&header), bytes_(bytes) {}

    /// Appends a frame. Returns 0, EAGAIN (no room now), EMSGSIZE (payload over the limit) or
    /// EPROTO (the peer's index is impossible: it broke the ring, give up the channel).
    [[nodiscard]] int push(FrameHeader header, std::span<const std::byte> payload);

    /// Returns true if the peer sleeps or is about to, and so must be woken by its doorbell. Any
    /// push that happened before is seen by the peer if this returns false.
    bool peer_sleeps() const;

    /// Does the peer wait for the room that a pop from the opposite ring has made? Any pop that
    /// happened before is seen by the peer if this returns false.
    bool peer_waits_for_room() const;

    /// Returns how many bytes the peer says it has taken so far.
    std::uint64_t taken() const { return header_->head.load(std::memory_order_acquire); }
    bool drained() const { return taken() == tail_; }
    /// Would a payload of this size find room now?
    bool has_room(std::size_t payload_size) const;

  private:
    void copy_in(std::uint64_t at, const void* data, std::size_t size);

    RingHeader* header_;
    std::span<std::byte> bytes_;
    std::uint64_t tail_ = 0;
};

enum class Pop { frame, empty, broken };

class RingReader {
  public:
    RingReader(RingHeader& header, std::span<std::byte> bytes) : header_(&header), bytes_(bytes) {}

    /// Copies the oldest frame out of shared memory; what it returns can no longer change.
    /// `broken` means sizes or indices that no honest peer writes: give up the channel.
    [[nodiscard]] Pop pop(FrameHeader& ret_header, std::vector<std::byte>& ret_payload);

    bool empty() const { return header_->tail.load(std::memory_order_acquire) == head_; }

    /// Says that this side is about to sleep and for what it is to be woken. What it waits for must
    /// be looked at once more between this call and sleeping. After sleeping call `awake`.
    void going_to_sleep(WakeFor reason);
    void awake() { header_->asleep.store(0, std::memory_order_relaxed); }

  private:
    void copy_out(std::uint64_t at, void* data, std::size_t size) const;

    RingHeader* header_;
    std::span<std::byte> bytes_;
    std::uint64_t head_ = 0;
};

}  // namespace warmfork
