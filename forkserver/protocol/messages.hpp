// What travels over sockets: the control socket of a channel and the mailbox of a child.
// Both are SOCK_SEQPACKET: a message arrives whole or not at all.
#pragma once

#include <cstddef>
#include <cstdint>

#include "protocol/limits.hpp"
#include "protocol/stage.hpp"

namespace warmfork {

inline constexpr std::uint32_t kHelloMagic = 0x6f6c6c48;    // "Hllo"
inline constexpr std::uint32_t kMailboxMagic = 0x786f624d;  // "Mbox"

/// The environment variable that tells a program which descriptor is its control socket. The
/// preload library takes it out of the environment before any other code runs.
inline constexpr const char* kChannelVariable = "WARMFORK_CHANNEL";
/// Who has started this program as a template: the owner's pid. It stays until the program has
/// shown that it can be one, so that a program which is not, but the application itself (frozen, a
/// wrapper, an embedding), does not start itself again.
inline constexpr const char* kLaunchVariable = "WARMFORK_LAUNCHED_BY";
/// The control socket of a template that is started: the number that stands in that variable.
inline constexpr int kChannelNumber = 3;

/// The file in memory that is a template's standard output and error, as its owner makes it.
inline constexpr const char* kOutputName = "warmfork-template-output";

/// What a template is about to preload it says in a line of its own on standard error, behind this
/// mark.
inline constexpr char kProgressMark = '\x1e';

/// The owner's hello is queued on the control socket before the template is started. With it come,
/// in this order: segment, command doorbell, completion doorbell, pidfd of the owner, and, unless
/// none was to be had, the inotify instance that the template is to watch with.
struct OwnerHello {
    std::uint32_t magic;
    std::uint16_t version;
    std::uint16_t flags;  ///< HelloFlag
    std::int32_t owner_pid;
    std::uint32_t spares_least;
    std::uint32_t spares_most;
};  // followed by strings, NUL between them: the keeper's path, then the gate's exceptions
static_assert(sizeof(OwnerHello) == 20);
inline constexpr std::size_t kHelloDescriptors = 5;

/// The owner's main thread opened the template: a parent-death signal then fires at the owner's
/// death and not earlier (it follows the thread that made the template).
inline constexpr std::uint16_t kHelloFromMainThread = 1;
/// Each child is to have a twin of the template as its own child, parked.
inline constexpr std::uint16_t kHelloNested = 2;

/// What a child sends to its parked twin, on the socket that becomes the control socket. With it
/// comes the file for the template's standard output and error.
struct TwinGreeting {
    std::uint32_t magic;
};
static_assert(sizeof(TwinGreeting) == 4);
inline constexpr std::uint32_t kTwinMagic = 0x6e697754;  // "Twin"

/// The answer comes from the template that the twin has become by one more fork. The hello follows
/// once the twin has been reaped: by then the template is a child of the child.
struct TwinReply {
    std::uint32_t magic;
    std::int32_t template_pid;
    std::uint64_t template_mark;  ///< with the pid its ProcessIdentity
};
static_assert(sizeof(TwinReply) == 16);

/// The template's answer is the first message in the other direction. It comes before it preloads,
/// where it can (Python), or when it begins to serve.
struct TemplateHello {
    std::uint32_t magic;
    std::uint16_t version;
    std::uint16_t reserved;
    std::int32_t template_pid;
};
static_assert(sizeof(TemplateHello) == 12);

/// What the owner sends to the template on the control socket, ahead of a spawn frame: first one
/// with the children's ends of their mailboxes, then one with the descriptors of the record. The
/// owner has the mailboxes before the children exist: a template that is killed right after a fork
/// leaves no child unknown to its owner.
struct DescriptorMessage {
    std::uint64_t spawn_id;
};
static_assert(sizeof(DescriptorMessage) == 8);

/// What the template sends to the owner on the control socket, with the owner's end of a spare's
/// mailbox. It does so before the spare is forked, for the same reason.
struct MailboxMessage {
    std::uint64_t child_id;
    std::int64_t made;  ///< nanoseconds of CLOCK_MONOTONIC
};
static_assert(sizeof(MailboxMessage) == 16);

/// What the owner sends to a parked child, with the record behind it. The message's first
/// descriptor is the write end of a pipe for the reply.
struct MailboxHeader {
    std::uint32_t magic;
    std::uint32_t record_size;  ///< 0: the record is the message's next descriptor, a sealed memfd
};
static_assert(sizeof(MailboxHeader) == 8);

enum class ReplyKind : std::uint32_t {
    parked = 1,   ///< prepared, waiting for its record
    started = 2,  ///< set up as the record says; user code is next
    failed = 3,   ///< at `stage`, with `error_number`; the child ends with status 127
};

/// What a child answers to its owner.
struct MailboxReply {
    ReplyKind kind;
    Stage stage;
    std::int32_t error_number;
    std::int32_t detail;  ///< a descriptor, signal or resource number, where the stage has one
    std::int32_t pid;     ///< of the child, which may be quicker than the template's `born`
    std::uint32_t reserved;
    std::uint64_t mark;  ///< of the child: with the pid its ProcessIdentity
};
static_assert(sizeof(MailboxReply) == 32);

}  // namespace warmfork
