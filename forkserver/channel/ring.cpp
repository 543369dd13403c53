#include "channel/ring.hpp"

#include <algorithm>
#include <cerrno>
#include <cstring>

namespace warmfork {
namespace {

std::uint64_t padded(std::uint64_t size) {
    return (size + 7) & ~std::uint64_t{7};
}

}  // namespace

// Why a frame is never missed by a sleeper. The writer stores `tail`, fences, loads `asleep`; the
// reader stores `asleep`, fences, loads `tail`. Both fences are sequentially consistent, so at
// least one of the two loads sees the other's store: either the writer rings, or the reader does
// not sleep. Waiting for room is the same with `head` in the place of `tail`.

bool RingWriter::has_room(std::size_t payload_size) const {
    const std::uint64_t used = tail_ - taken();
    if (used > bytes_.size()) return true;  // it is broken, as `push` says
    return sizeof(FrameHeader) + padded(payload_size) <= bytes_.size() - used;
}

int RingWriter::push(FrameHeader header, std::span<const std::byte> payload) {
    if (payload.size() > kMaximumFramePayload) return EMSGSIZE;
    if (tail_ - taken() > bytes_.size()) return EPROTO;
    if (!has_room(payload.size())) return EAGAIN;
    header.payload_size = static_cast<std::uint32_t>(payload.size());
    copy_in(tail_, &header, sizeof header);
    copy_in(tail_ + sizeof header, payload.data(), payload.size());
    tail_ += sizeof header + padded(payload.size());
    header_->tail.store(tail_, std::memory_order_release);
    return 0;
}

bool RingWriter::peer_sleeps() const {
    std::atomic_thread_fence(std::memory_order_seq_cst);
    return header_->asleep.load(std::memory_order_relaxed) != 0;
}

bool RingWriter::peer_waits_for_room() const {
    std::atomic_thread_fence(std::memory_order_seq_cst);
    return header_->asleep.load(std::memory_order_relaxed) ==
           static_cast<std::uint32_t>(WakeFor::frames_and_room);
}

void RingWriter::copy_in(std::uint64_t at, const void* data, std::size_t size) {
    if (size == 0) return;
    const std::size_t offset = at & (bytes_.size() - 1);
    const std::size_t first = std::min(size, bytes_.size() - offset);
    std::memcpy(bytes_.data() + offset, data, first);
    std::memcpy(bytes_.data(), static_cast<const std::byte*>(data) + first, size - first);
}

Pop RingReader::pop(FrameHeader& ret_header, std::vector<std::byte>& ret_payload) {
    const std::uint64_t available = header_->tail.load(std::memory_order_acquire) - head_;
    if (available == 0) return Pop::empty;
    if (available > bytes_.size() || available < sizeof(FrameHeader)) return Pop::broken;
    FrameHeader header;
    copy_out(head_, &header, sizeof header);
    if (header.payload_size > kMaximumFramePayload) return Pop::broken;
    const std::uint64_t size = sizeof header + padded(header.payload_size);
    if (size > available) return Pop::broken;
    ret_payload.resize(header.payload_size);
    copy_out(head_ + sizeof header, ret_payload.data(), header.payload_size);
    ret_header = header;
    head_ += size;
    header_->head.store(head_, std::memory_order_release);
    return Pop::frame;
}

void RingReader::going_to_sleep(WakeFor reason) {
    header_->asleep.store(static_cast<std::uint32_t>(reason), std::memory_order_relaxed);
    std::atomic_thread_fence(std::memory_order_seq_cst);
}

void RingReader::copy_out(std::uint64_t at, void* data, std::size_t size) const {
    if (size == 0) return;
    const std::size_t offset = at & (bytes_.size() - 1);
    const std::size_t first = std::min(size, bytes_.size() - offset);
    std::memcpy(data, bytes_.data() + offset, first);
    std::memcpy(static_cast<std::byte*>(data) + first, bytes_.data(), size - first);
}

}  // namespace warmfork
