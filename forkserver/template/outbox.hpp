// Completions on their way to the owner, in order. When the ring is full the rest waits here, and
// nothing is dropped.
#pragma once

#include <deque>
#include <string_view>
#include <vector>

#include "channel/doorbell.hpp"
#include "channel/ring.hpp"

namespace warmfork {

class Outbox {
  public:
    Outbox(RingWriter ring, const Descriptor& doorbell) : ring_(ring), doorbell_(doorbell) {}

    void add(const FrameHeader& header, std::span<const std::byte> payload = {}) {
        waiting_.push_back({header, {payload.begin(), payload.end()}});
        flush();
    }
    void add(const FrameHeader& header, std::string_view text) {
        add(header, std::as_bytes(std::span(text.substr(0, kMaximumTextSize))));
    }

    /// Sends what there is room for.
    void flush() {
        bool sent = false;
        for (; !waiting_.empty(); waiting_.pop_front(), sent = true) {
            const int error = ring_.push(waiting_.front().header, waiting_.front().payload);
            if (error && error != EAGAIN) broken_ = true;
            if (error) break;
        }
        if (sent && ring_.peer_sleeps()) ring(doorbell_.get());
    }

    /// Must be called after a command was taken: the owner may wait for the room that this made.
    void ring_if_peer_waits_for_room() {
        if (ring_.peer_waits_for_room()) ring(doorbell_.get());
    }

    bool empty() const { return waiting_.empty(); }
    bool broken() const { return broken_; }  ///< the peer's index is impossible

  private:
    struct Completion {
        FrameHeader header;
        std::vector<std::byte> payload;
    };

    RingWriter ring_;
    const Descriptor& doorbell_;
    std::deque<Completion> waiting_;
    bool broken_ = false;
};

}  // namespace warmfork
