// Who is at the other end of a connection, by the kernel's word.
#pragma once

#include <sys/types.h>

#include <string>

#include "channel/descriptor.hpp"

namespace warmfork::service {

struct Peer {
    uid_t uid = 0;
    pid_t pid = 0;
    Descriptor pidfd;
    std::string name;  ///< as /proc/PID/comm has it
};

/// Reads who connected this socket. Returns 0 or errno (ESRCH: it has ended already).
[[nodiscard]] int read_peer(int socket, Peer& ret_peer);

}  // namespace warmfork::service
