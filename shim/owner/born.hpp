// A child that a template made, as its owner knows it.
#pragma once

#include <chrono>
#include <cstdint>

#include "channel/process_identity.hpp"
#include "owner/owned_sockets.hpp"
#include "owner/waiting.hpp"

namespace warmfork {

/// Such a child, with the owner's end of its mailbox.
struct Born {
    std::uint64_t id = 0;
    pid_t pid = 0;
    OwnedSocket mailbox;
    bool has_parked = false;       ///< has said that it is prepared
    WaitClock::time_point made{};  ///< of a spare, which may only reach a certain age
    std::uint64_t mark = 0;

    ProcessIdentity identity() const { return {pid, mark}; }
};

}  // namespace warmfork
