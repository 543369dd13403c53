// The life of a child from the clone until user code.
#pragma once

#include <cstdint>
#include <span>
#include <vector>

#include "child/title.hpp"
#include "protocol/record.hpp"
#include "template/host.hpp"

namespace warmfork {

/// How many numbers a child may keep open at any step: those of a record, of the image, and a few.
inline constexpr std::size_t kMostKept = 600;

/// What a child ends with that never came to user code: posix_spawn's.
inline constexpr int kFailedStatus = 127;

/// What all children of a template begin with.
struct InheritedState {
    Host* host = nullptr;
    ImageAddresses image;
    std::vector<int> image_descriptors;  ///< opened by preloading; every child keeps them
    int owner_pidfd = -1;
    /// RLIMIT_NOFILE as it was; the template raised its own.
    std::uint64_t soft_descriptor_limit = 0, hard_descriptor_limit = 0;
};

/// Everything one child needs, put down before the fork; after it the child looks at nothing else.
/// It owns nothing: each number is that of the child's own copy of a descriptor.
struct ChildPlan {
    const InheritedState* inherited = nullptr;
    int mailbox = -1;
    int parking_token = -1;  ///< of a spare
    /// The record and descriptors of a child that is forked on command. A spare, which waits, has
    /// none.
    std::span<std::byte> record{};
    std::span<const int> descriptors{};
};

/// What user code is to be started with. The views lie in memory of the child's own that stays.
struct ChildCommand {
    std::span<char*> arguments;  ///< a null pointer follows
    std::span<const std::byte> payload;
    const char* executable;  ///< null: not given
    std::uint64_t signal_mask;
    std::uint64_t signals_ignored;
    int channel;  ///< of a child that is to become a template, its control socket; -1: none
};

/// Runs in the child after the fork handlers: parks if it is a spare, takes its record, brings the
/// process into the state that the record describes, tells the owner, and has the host run user
/// code. Where the host leaves that to the program it returns, with all signals blocked still. Does
/// not return when something failed (the owner knows; status 127) or when there is nobody left to
/// wait for (status 0).
[[nodiscard]] ChildCommand run_child(const ChildPlan& plan);

}  // namespace warmfork
