// Messages between a service and its clients: protocol/service.hpp says which there are.
#pragma once

#include <span>
#include <vector>

#include "channel/descriptor.hpp"
#include "protocol/service.hpp"

namespace warmfork {

struct ServiceMessage {
    ServiceKind kind{};
    std::uint64_t id = 0;
    std::vector<std::byte> body;
    std::vector<Descriptor> descriptors;  ///< close-on-exec
    pid_t sender = 0;                     ///< see ReceivedMessage
};

/// Sends one message; the descriptors stay the caller's. `flags` are those of sendmsg. Returns 0 or
/// errno: EAGAIN (full, with MSG_DONTWAIT), EPIPE or ECONNRESET (the peer is gone), E2BIG (the body
/// is over kMaximumBodySize).
[[nodiscard]] int send_service_message(int socket, ServiceKind kind, std::uint64_t id,
                                       std::span<const std::byte> body,
                                       std::span<const int> descriptors, int flags);

/// Receives one message; nothing of it is believed but its shape. The descriptors that came with it
/// are in `ret_message` whatever is returned: their close(2) may block. `flags` are those of
/// recvmsg. Returns 0 or errno: EAGAIN, EINTR, ECONNRESET (the peer is gone), EPROTO (not such a
/// message, cut short, or descriptors without end), EPROTONOSUPPORT (of another version), EMFILE
/// (its descriptors did not fit into this process's limit: `ret_message` says which message it was,
/// and has its body unless that was among them).
[[nodiscard]] int receive_service_message(int socket, int flags, ServiceMessage& ret_message);

}  // namespace warmfork
