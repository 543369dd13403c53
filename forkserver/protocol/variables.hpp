// The environment variables by which users choose; those between processes are in messages.hpp.
#pragma once

namespace warmfork {

/// The socket of the service, instead of the one in the user's runtime directory.
inline constexpr const char* kSocketVariable = "WARMFORK_SOCKET";

/// Warm, cold or auto where neither the request nor the template says which.
inline constexpr const char* kBackendVariable = "WARMFORK_BACKEND";

}  // namespace warmfork
