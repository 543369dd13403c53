// What happens in a child between its birth and user code, whichever backend made it. Everything
// here runs between fork (or vfork) and user code: it uses no allocation, no locks and no stdio;
// errno is all it has.
#pragma once

#include <span>

#include "protocol/messages.hpp"
#include "protocol/record.hpp"

namespace warmfork {

struct ChildFailure {
    Stage stage = Stage::none;
    int error_number = 0;
    int detail = 0;  ///< the descriptor, signal or resource, where the stage has one
};

/// The descriptors that a child has at hand when its set-up begins.
struct ChildDescriptors {
    std::span<int> sources;  ///< [i] goes to record.descriptor_targets[i]; may be renumbered
    int directory = -1;      ///< where the child starts from; -1: where it is. Closed by the set-up
    int reply = -1;          ///< survives the set-up, perhaps under another number; -1: none
    std::span<const int> image;  ///< opened by preloading; survive
    std::span<int> kept;         ///< room for all of these numbers: `kept_count` of them
};

/// How many numbers a set-up may keep open.
[[nodiscard]] constexpr std::size_t kept_count(std::size_t targets, std::size_t image) {
    return targets + image + 2;  // directory and reply
}

/// Brings the calling process into the state that the record describes, apart from environment,
/// title and signal mask: descriptors, session and group, dispositions, limits, directory. All
/// descriptors but the record's targets, `image` and `reply` are closed. Where it returns false,
/// `ret_failure` says which step failed, and the process is to be ended.
[[nodiscard]] bool set_up_child(const RecordView& record, ChildDescriptors& descriptors,
                                ChildFailure& ret_failure);

/// Puts every signal back to its default action (but SIGKILL, SIGSTOP and the two that glibc
/// keeps). Returns false with errno set where it cannot.
[[nodiscard]] bool reset_dispositions();

/// Does what execve would do: handlers go back to the default, ignored signals stay ignored.
/// Returns false with errno set where it cannot.
[[nodiscard]] bool reset_handlers();

/// Sets the calling thread's mask. Bit n-1 is signal n. False: errno says why not; only a filter of
/// system calls refuses it, to a process that could do it before if it was installed since.
[[nodiscard]] bool set_signal_mask(std::uint64_t mask);
inline constexpr std::uint64_t kAllSignals = ~std::uint64_t{0};

/// Returns the calling thread's mask; bit n-1 is signal n.
[[nodiscard]] std::uint64_t signal_mask();

/// Closes every descriptor that is not in `kept`, which gets sorted; negative ones there are
/// ignored. Where close_range(2) is refused, those that /proc/self/fd lists are closed. Returns 0,
/// or errno: then some are open still.
[[nodiscard]] int close_all_but(std::span<int> kept);

}  // namespace warmfork
