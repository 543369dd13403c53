// Where a user's service listens.
#pragma once

#include <string>

namespace warmfork {

/// Returns WARMFORK_SOCKET, or the socket of this user's service: $XDG_RUNTIME_DIR/warmfork/socket,
/// for root without such a directory /run/warmfork/socket. It is empty where there is no place for
/// it.
[[nodiscard]] std::string service_address();

}  // namespace warmfork
