// What a service and its clients say to each other, over one SOCK_SEQPACKET connection a process.
// README.md beside this file says why it is not a shared segment.
#pragma once

#include <cstddef>
#include <cstdint>

#include "protocol/limits.hpp"

namespace warmfork {

inline constexpr std::uint32_t kServiceMagic = 0x63767357;  // "Wsvc"

/// Raised whenever a message changes; both ends say theirs first and refuse another by name.
inline constexpr std::uint16_t kServiceVersion = 3;

/// What a message says. The meaning of a number never changes.
enum class ServiceKind : std::uint16_t {
    // Client to service.
    hello = 1,  ///< first; body: number: pid
    find = 2,   ///< id: request; body: text: template
    lease = 3,  ///< id: request; body: LeaseRequest
    run = 4,    ///< id: request; body: text: template, then text: as LeaseRequest::sight;
    ///< descriptors 0 to 2: a fixed command line
    signal = 5,  ///< id: child of `run`; body: number
    used = 6,    ///< id: child, or 0; body: UseReport
    manage = 7,  ///< id: request; body: text: verb, text: template
    missed = 8,  ///< id: image, which did not arrive: to be shown again before the next lease of it
    // Service to client.
    welcome = 16,  ///< first; body: Welcome
    found = 17,    ///< id: request; body: TemplateFacts
    image = 18,  ///< id: image (in the upper half: the service's generation; a new one has none of
    ///< the images before it); body: ImageFacts; descriptors: segment (read-only), inotify
    leased = 19,   ///< id: request; body: numbers: child, pid, image; descriptors: pidfd, mailbox
    refused = 20,  ///< id: request; body: numbers: stage, errno, reason; text
    exited = 21,   ///< id: child; body: number: status as of waitpid; rusage
    managed = 22,  ///< id: request; body: text: JSON
    gone = 23,     ///< id: image, of which no more leases come
};

/// It stands in front of every message. A body that is larger than kInlineBodySize lies in a sealed
/// memfd, the first descriptor.
struct ServiceHeader {
    std::uint32_t magic;
    std::uint16_t version;
    ServiceKind kind;
    std::uint64_t id;
    std::uint32_t body_size;
    std::uint32_t reserved;
};
static_assert(offsetof(ServiceHeader, kind) == 6);
static_assert(offsetof(ServiceHeader, id) == 8);
static_assert(sizeof(ServiceHeader) == 24);

inline constexpr std::size_t kInlineBodySize = 32u << 10;
/// A body holds an environment and a command line at the most, as a record does.
inline constexpr std::size_t kMaximumBodySize = kMaximumRecordSize;
/// The most descriptors that come with one message: those of `run`, and the memfd of a body.
inline constexpr std::size_t kMaximumServiceDescriptors = 4;

/// Flags of a lease request.
inline constexpr std::uint64_t kLeaseMayWait = 1;   ///< for an image that is yet to be preloaded
inline constexpr std::uint64_t kLeaseDetached = 2;  ///< the child outlives its client
inline constexpr std::uint64_t kLeaseIsolated = 4;  ///< Selection::is_isolated

/// The exit status of a service that did not start as another one has its place already.
inline constexpr int kServicePlaceTaken = 3;

/// Leases of one request.
inline constexpr std::uint64_t kMostLeases = 64;

}  // namespace warmfork
