// What the service says to the manager that has started it, in the words of sd_notify(3).
#pragma once

#include <chrono>
#include <string_view>

namespace warmfork::service {

/// Sends `state` ("READY=1", lines of KEY=VALUE) to the socket that NOTIFY_SOCKET names. Where that
/// has no room, as nobody reads it, it blocks for `patience`, unlike sd_notify(3), which waits for
/// ever: a manager that hangs would stop all spawns. Returns false where it was not said, and true
/// also where nobody wants to know.
[[nodiscard]] bool notify_manager(std::string_view state, std::chrono::milliseconds patience);

/// The patience with what the manager waits for, or acts on. A reload says two such words, and
/// clients take a service that is silent for eight seconds for one that hangs.
constexpr std::chrono::milliseconds kManagerPatience{2000};

/// Says READY=1. Where it cannot be said, that is logged.
void say_ready();

}  // namespace warmfork::service
