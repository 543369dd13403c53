// Where clients connect: a socket from systemd, or one of our own.
#pragma once

#include <string>

#include "channel/descriptor.hpp"

namespace warmfork::service {

struct Listener {
    Descriptor socket;
    Descriptor lock;   ///< of a socket of our own; held as long as it listens
    std::string path;  ///< of a socket of our own, empty: systemd's
};

/// Takes the socket that systemd has passed on (LISTEN_FDS), or binds `path`, mode 0600, in a
/// directory that is made if it is missing (0700) and must be this user's alone. A socket file that
/// nobody listens on any more is replaced. Returns 0, or errno with `ret_error` saying what was
/// attempted: EADDRINUSE (another service has the lock), EPERM (the directory is not ours, or
/// others may enter it).
[[nodiscard]] int listen(const std::string& path, Listener& ret_listener, std::string& ret_error);

/// Returns where it listens, whoever has bound it, or an empty path where that is not known.
[[nodiscard]] std::string path_of(const Listener& listener);

/// Accepts one connection, close-on-exec and non-blocking. It is empty, with errno set, on failure.
[[nodiscard]] Descriptor accept(const Listener& listener);

/// Says whether descriptors may be sent over this connection, or those to this listening socket.
/// With false, peers that are yet to be looked at cannot send any. Before Linux 6.16 they always
/// can. Returns 0 or errno.
[[nodiscard]] int let_descriptors_through(int socket, bool may_be_sent);

}  // namespace warmfork::service
