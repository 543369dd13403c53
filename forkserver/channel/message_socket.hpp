// SOCK_SEQPACKET messages with descriptors: the control socket and the mailboxes.
#pragma once

#include <sys/types.h>

#include <cstddef>
#include <cstdint>
#include <span>
#include <vector>

#include "channel/descriptor.hpp"
#include "protocol/limits.hpp"

namespace warmfork {

/// Makes a connected pair, close-on-exec. Returns 0 or errno.
[[nodiscard]] int make_message_pair(Descriptor& ret_one, Descriptor& ret_other);

/// Sends one message from up to two pieces, with descriptors that stay the caller's. Never raises
/// SIGPIPE. `flags` are those of sendmsg, e.g. MSG_DONTWAIT. Returns 0 or errno (EPIPE or
/// ECONNRESET: the peer is gone; EAGAIN: full; ETOOMANYREFS: too many descriptors in flight).
/// Allocates nothing.
[[nodiscard]] int send_message(int socket, std::span<const std::byte> head,
                               std::span<const std::byte> body, std::span<const int> descriptors,
                               int flags);

struct ReceivedMessage {
    std::size_t size = 0;                ///< bytes of the message; 0 with error 0: the peer is gone
    bool truncated = false;              ///< longer than the buffer
    bool descriptors_truncated = false;  ///< some did not arrive: the limit on open files
    std::size_t descriptor_count = 0;    ///< written to the caller's array, close-on-exec
    pid_t sender = 0;  ///< by the kernel's word, where the socket has SO_PASSCRED; 0: not known
};

/// Receives one message. At most `ret_descriptors.size()` descriptors are kept, and are the
/// caller's from then on. Returns 0 or errno (EAGAIN with MSG_DONTWAIT; EINTR). Allocates nothing,
/// and is safe between fork and exec.
[[nodiscard]] int receive_message(int socket, std::span<std::byte> buffer,
                                  std::span<int> ret_descriptors, int flags,
                                  ReceivedMessage& ret_message);

/// Returns the bytes of one object, for `send_message`.
template <typename T>
std::span<const std::byte> bytes_of(const T& object) {
    return std::as_bytes(std::span(&object, 1));
}

/// Returns the kernel's cookie of a socket, which no other socket ever has, or 0 where there is
/// none.
[[nodiscard]] std::uint64_t socket_cookie(int socket);

/// Makes a memfd that holds `bytes`, sealed against every change. It is empty, with errno set, on
/// failure.
[[nodiscard]] Descriptor make_sealed_memfd(std::span<const std::byte> bytes);

/// Reads a memfd that must be sealed against writing and shrinking, and hold at most
/// `buffer.size()` bytes, so that its reader can neither be raced nor raise SIGBUS. Returns 0,
/// errno, EPERM (not sealed) or EMSGSIZE. Allocates nothing.
[[nodiscard]] int read_sealed_memfd(int memfd, std::span<std::byte> buffer, std::size_t& ret_size);

}  // namespace warmfork
