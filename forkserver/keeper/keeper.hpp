// The near side of warmfork-keeper: start one, give it processes to look after.
#pragma once

#include <cstdint>
#include <string>

#include "channel/descriptor.hpp"

namespace warmfork {

struct KeeperMessage {
    std::uint32_t told_by_kernel;  ///< the ward has SIGTERM as its parent-death signal
    std::uint32_t no_more_wards;   ///< the end of file behind this is not the owner's death
};

/// Starts a keeper for the owner behind `owner_pidfd` and returns with it running; it is not left
/// as a child of the caller. Returns 0 or errno. Blocks about a millisecond.
[[nodiscard]] int start_keeper(const std::string& program, int owner_pidfd, Descriptor& ret_keeper);

/// Gives a process, by its pidfd, to the keeper. Returns 0 or errno (EPIPE: the keeper is gone).
/// Safe between vfork and exec.
[[nodiscard]] int keep(int keeper, int pidfd, bool told_by_kernel);

/// Gives it a process that has an owner of its own, behind `owner_pidfd`. As long as the keeper's
/// owner lives that is the one to see to it. Otherwise as `keep`.
[[nodiscard]] int keep_for(int keeper, int pidfd, int owner_pidfd);

/// Says that no more wards come; the keeper then outlives this socket until its wards have ended.
void leave_to_itself(Descriptor keeper);

}  // namespace warmfork
