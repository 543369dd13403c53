// Where the user's service listens, and whether it is to be trusted, for programs that allocate
// nothing.
#pragma once

#include <sys/socket.h>
#include <sys/un.h>

#include <cstddef>

namespace warmfork::link {

inline constexpr std::size_t kSocketPathSize = sizeof sockaddr_un::sun_path;

/// Gives what service_address() of shim/owner gives. Returns false where there is no place for it.
[[nodiscard]] bool find_service_socket(char (&ret_path)[kSocketPathSize]);

/// Is it a service of this user's or of root's, or one that was chosen by name? It is sent the
/// environment, and what it runs is up to it. `service`: SO_PEERCRED of the connection.
[[nodiscard]] bool is_trusted(const ucred& service);

}  // namespace warmfork::link
