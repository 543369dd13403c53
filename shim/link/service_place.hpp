// Where the user's service listens, for programs that allocate nothing.
#pragma once

#include <sys/un.h>

#include <cstddef>

namespace warmfork::link {

inline constexpr std::size_t kSocketPathSize = sizeof sockaddr_un::sun_path;

/// Gives what service_address() of shim/owner gives. False: there is no place for it.
[[nodiscard]] bool find_service_socket(char (&ret_path)[kSocketPathSize]);

}  // namespace warmfork::link
