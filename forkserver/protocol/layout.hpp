// The shared segment: one header, two rings. README.md beside this file draws it. It is plain data;
// the behaviour is in channel/ring.hpp. Neither side trusts what the other wrote.
#pragma once

#include <atomic>
#include <cstddef>
#include <cstdint>

#include "protocol/limits.hpp"

namespace warmfork {

inline constexpr std::uint64_t kSegmentMagic = 0x316b726f666d7277;  // "wrmfork1"

/// What /proc calls a child that is parked, until it has its record, which gives it a name of its
/// own.
inline constexpr const char* kSpareName = "warmfork-spare";

/// Indices run freely and are masked where they are used. Each field has one writer, and each
/// writer a cache line, so that the two processes do not fight over a line.
struct RingHeader {
    alignas(64) std::atomic<std::uint64_t> tail;    ///< bytes written; the producer's
    alignas(64) std::atomic<std::uint64_t> head;    ///< bytes read; the consumer's
    alignas(64) std::atomic<std::uint32_t> asleep;  ///< 1: ring the doorbell; the consumer's
};
static_assert(std::atomic<std::uint64_t>::is_always_lock_free);
static_assert(std::atomic<std::uint32_t>::is_always_lock_free);
static_assert(offsetof(RingHeader, tail) == 0);
static_assert(offsetof(RingHeader, head) == 64);
static_assert(offsetof(RingHeader, asleep) == 128);
static_assert(sizeof(RingHeader) == 192);

/// A child that `born` has perhaps not announced yet. If template and child are killed before
/// either of them says anything, its parent learns of it here all the same.
struct Newborn {
    std::atomic<std::uint64_t> id;     ///< child
    std::atomic<std::uint64_t> spawn;  ///< or 0: a spare
    std::atomic<std::int32_t> pid;     ///< the kernel's, before the child runs; 0: not forked
    std::uint32_t reserved;
    std::atomic<std::uint64_t> mark;  ///< with the pid its ProcessIdentity; 0: not written yet
};
static_assert(sizeof(Newborn) == 32 && sizeof(Newborn::pid) == sizeof(int));

struct SegmentLayout {
    std::uint64_t magic;
    std::uint16_t version;
    std::uint16_t reserved[3];
    alignas(64) RingHeader command_ring;               ///< owner to template
    alignas(64) RingHeader completion_ring;            ///< template to owner
    alignas(64) std::atomic<std::uint32_t> freshness;  ///< the template's; FreshnessWord
    alignas(4096) Newborn newborns[kNewborns];  ///< the template's; by id, modulo their number
    alignas(4096) std::byte command_bytes[kCommandRingSize];
    alignas(4096) std::byte completion_bytes[kCompletionRingSize];
};
static_assert(offsetof(SegmentLayout, magic) == 0);
static_assert(offsetof(SegmentLayout, version) == 8);
static_assert(offsetof(SegmentLayout, command_ring) == 64);
static_assert(offsetof(SegmentLayout, completion_ring) == 256);
static_assert(offsetof(SegmentLayout, freshness) == 448);
static_assert(offsetof(SegmentLayout, newborns) == 4096);
static_assert(offsetof(SegmentLayout, command_bytes) == 12288);
static_assert(offsetof(SegmentLayout, completion_bytes) == 12288 + 262144);
static_assert(sizeof(SegmentLayout) == 12288 + 262144 + 65536);

/// Is the image what its files would give now? template/freshness.hpp says in which order it is
/// read.
enum FreshnessWord : std::uint32_t {
    kFreshnessChecking = 0,  ///< the template is about to say: ask it
    kFreshnessFresh = 1,     ///< while no event waits in the inotify instance
    kFreshnessStale = 2,     ///< a file has changed; for good
    kFreshnessCompared = 3,  ///< nothing is watched: the template compares at each fork
};

/// What a frame says. The number's meaning never changes; a new kind raises kProtocolVersion.
enum class FrameKind : std::uint16_t {
    // Commands, owner to template.
    spawn = 1,       ///< id: spawn; values: count, SpawnFlag; payload: record
    handed_off = 2,  ///< id: child; values: Lifetime, 0 or kHandedOffToEnd
    park = 3,        ///< values: least and most spares to keep
    report = 4,      ///< id: request
    shut_down = 5,
    look = 6,  ///< id: request: is the image up to date?
    // Completions, template to owner.
    ready = 16,     ///< values: pid; payload: ImageDescriptor[]
    refused = 17,   ///< payload: text of the gate
    born = 18,      ///< id: child; values: pid, spawn (0: a spare, whose mailbox came before this);
                    ///< payload: the mark of its ProcessIdentity, 8 bytes
    not_born = 19,  ///< id: spawn; values: Stage, errno; payload: text; all further ones too
    gone = 20,      ///< id: child; values: pid; a spare ended that nobody has taken, or (pid 0) was
                    ///< never forked though its mailbox was sent
    reported = 21,  ///< id: request; payload: JSON text
    variables =
        22,  ///< read while preloading; values: 1, all of them; payload: strings, before ready
    shadowable = 23,  ///< payload: "module=file" each, and what depends on the directory: see
                      ///< template/image.hpp; before ready
    stale = 24,       ///< payload: text: what has changed
    looked = 25,      ///< id: request; values: 1, it was up to date after the request was made
};

/// Set in a spawn frame's second value: the record is the first descriptor of the message.
inline constexpr std::int64_t kSpawnRecordInMemfd = 1;
/// Set there too: the template is to fork even if its image is stale.
inline constexpr std::int64_t kSpawnFromStaleImage = 2;

/// A hand-off's second value: nobody takes the child, which ends, and `gone` is to say when it has.
inline constexpr std::int64_t kHandedOffToEnd = 1;

/// A frame in a ring: this header, then `payload_size` bytes, padded to 8.
struct FrameHeader {
    std::uint32_t payload_size;
    FrameKind kind;
    std::uint16_t descriptor_count;  ///< of a spawn, sent ahead on the control socket
    std::uint64_t id;
    std::int64_t values[2];
};
static_assert(offsetof(FrameHeader, payload_size) == 0);
static_assert(offsetof(FrameHeader, kind) == 4);
static_assert(offsetof(FrameHeader, descriptor_count) == 6);
static_assert(offsetof(FrameHeader, id) == 8);
static_assert(offsetof(FrameHeader, values) == 16);
static_assert(sizeof(FrameHeader) == 32);

/// A frame without a payload; the ring fills in the size.
constexpr FrameHeader make_frame(FrameKind kind, std::uint64_t id = 0, std::int64_t first = 0,
                                 std::int64_t second = 0) {
    return {0, kind, 0, id, {first, second}};
}

inline constexpr std::size_t kMaximumFramePayload = kInlineRecordSize;

}  // namespace warmfork
