// The rings of a segment while the peer writes into them whatever and whenever it likes, and the
// segment itself as it comes from a peer.
#include <fcntl.h>
#include <sys/mman.h>
#include <unistd.h>

#include <memory>
#include <vector>

#include "channel/ring.hpp"
#include "channel/segment.hpp"
#include "fuzz_input.hpp"

using namespace warmfork;

namespace {

constexpr std::size_t kRingSize = 4096;

struct Memory {
    RingHeader header{};
    // On the heap, so that an access beyond its end is seen.
    std::vector<std::byte> bytes = std::vector<std::byte>(kRingSize);
};

/// A ring whose other end obeys the input.
class Rings {
  public:
    void step(fuzz::Input& input) {
        switch (input.number<std::uint8_t>() % 6) {
            case 0:
                memory_.header.tail.store(index(input));
                break;
            case 1:
                memory_.header.head.store(index(input));
                break;
            case 2:
                scribble(input);
                break;
            case 3:
                pop();
                break;
            case 4:
                push(input);
                break;
            case 5:
                memory_.header.asleep.store(input.number<std::uint32_t>());
                static_cast<void>(writer_.peer_sleeps());
                static_cast<void>(writer_.peer_waits_for_room());
                break;
        }
    }

  private:
    /// Small distances are what may pass; all others must be refused.
    std::uint64_t index(fuzz::Input& input) {
        const auto distance = input.number<std::uint16_t>();
        return input.number<std::uint8_t>() & 1 ? memory_.header.head.load() + distance
                                                : input.number<std::uint64_t>();
    }

    void scribble(fuzz::Input& input) {
        const std::size_t at = input.number<std::uint16_t>() % kRingSize;
        const std::span<const std::byte> bytes = input.bytes(input.number<std::uint8_t>());
        for (std::size_t i = 0; i < bytes.size(); ++i)
            memory_.bytes[(at + i) % kRingSize] = bytes[i];
    }

    void pop() {
        FrameHeader header;
        // Each frame takes at least its header of what the peer can claim to have written.
        for (std::size_t frames = 0; reader_.pop(header, payload_) == Pop::frame; ++frames) {
            fuzz::require(payload_.size() <= kMaximumFramePayload, "a payload is within its limit");
            fuzz::require(payload_.size() == header.payload_size, "a payload has its size");
            fuzz::require(frames < kRingSize / sizeof(FrameHeader), "a full ring comes to an end");
        }
    }

    void push(fuzz::Input& input) {
        const std::span<const std::byte> payload = input.bytes(input.number<std::uint8_t>());
        const int error = writer_.push(make_frame(FrameKind::spawn), payload);
        fuzz::require(error == 0 || error == EAGAIN || error == EPROTO, "a push says what it did");
    }

    Memory memory_;
    RingReader reader_{memory_.header, memory_.bytes};
    RingWriter writer_{memory_.header, memory_.bytes};
    std::vector<std::byte> payload_;
};

void attach(fuzz::Input& input) {
    const Descriptor memfd(::memfd_create("fuzz", MFD_CLOEXEC | MFD_ALLOW_SEALING));
    const auto seals = static_cast<int>(input.number<std::uint8_t>() & 0xf);
    const bool is_whole = input.number<std::uint8_t>() & 1;
    const std::size_t size =
        is_whole ? sizeof(SegmentLayout) : input.number<std::uint32_t>() % (1u << 20);
    const std::span<const std::byte> start = input.bytes(64);
    if (::ftruncate(memfd.get(), static_cast<off_t>(size)) < 0 ||
        ::pwrite(memfd.get(), start.data(), std::min(start.size(), size), 0) < 0 ||
        ::fcntl(memfd.get(), F_ADD_SEALS, seals) < 0)
        return;
    Segment segment;
    if (Segment::attach(memfd, segment) == 0) {
        fuzz::require(size == sizeof(SegmentLayout), "a segment has its size");
        fuzz::require(::ftruncate(memfd.get(), 0) < 0, "an attached segment cannot be cut short");
        fuzz::require(segment.layout().version == kProtocolVersion, "it has this version");
    }
}

}  // namespace

extern "C" int LLVMFuzzerTestOneInput(const std::uint8_t* data, std::size_t size) {
    fuzz::Input input(data, size);
    if (input.number<std::uint8_t>() % 16 == 0) {
        attach(input);
        return 0;
    }
    Rings rings;
    while (!input.empty()) rings.step(input);
    return 0;
}
