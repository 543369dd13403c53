// What an owner and its warmfork-keeper say to each other, over a SOCK_SEQPACKET socket pair:
// README.md beside this file draws it. keeper/keeper.hpp has the owner's side.
#pragma once

#include <cstddef>
#include <cstdint>

namespace warmfork {

/// Descriptors that the program begins with.
inline constexpr int kKeeperSocketNumber = 3;
inline constexpr int kKeeperOwnerNumber = 4;  ///< a pidfd

/// What the owner sends to the keeper, with the pidfd of a child and, if the child has an owner of
/// its own, the pidfd of that. The last message has none.
struct KeeperMessage {
    std::uint32_t told_by_kernel;    ///< the child has SIGTERM as its parent-death signal
    std::uint32_t no_more_children;  ///< the end of file behind this is not the owner's death
};
static_assert(offsetof(KeeperMessage, no_more_children) == 4);
static_assert(sizeof(KeeperMessage) == 8);

/// What the keeper answers to each message with a child, in their order. It sends one of its own
/// accord when it has begun.
struct KeeperAnswer {
    std::int32_t error_number;  ///< 0: the child is looked after. EMFILE: no more descriptors
    std::int32_t pid;           ///< the keeper's
    std::uint64_t mark;         ///< of the keeper: with the pid its ProcessIdentity
};
static_assert(offsetof(KeeperAnswer, pid) == 4);
static_assert(offsetof(KeeperAnswer, mark) == 8);
static_assert(sizeof(KeeperAnswer) == 16);

}  // namespace warmfork
