// From a request to a child that has started: the record, its way into a mailbox, the answer.
#pragma once

#include <span>
#include <vector>

#include "owner/born.hpp"
#include "owner/eligibility.hpp"
#include "owner/owner_state.hpp"
#include "owner/request.hpp"
#include "owner/shadowing.hpp"

namespace warmfork {

/// How a child hangs together with who asked for it.
struct ChildTies {
    Lifetime lifetime;  ///< as the child itself is to see to it
    pid_t parent = 0;
    bool has_parent_death_signal = false;
    bool is_of_service = false;  ///< in another session: it gets a process group of its own
};

struct ChildRecord {
    std::vector<std::byte> bytes;
    Descriptor memfd;              ///< holds the bytes, where they are too many to travel inline
    std::vector<int> descriptors;  ///< the owner's, in the order of the record
    Descriptor directory;          ///< the last of them
};

/// Can the request be served warm, as far as its size goes? Stage record, E2BIG: it is more than a
/// record holds, or than execve would take of this process.
[[nodiscard]] Outcome check_size(const Request& request);

/// Makes bytes and memfd. EINVAL: a value is out of range; otherwise it is a limit that is in the
/// way.
[[nodiscard]] Outcome encode(const RecordContents& contents, ChildRecord& ret_record);

/// What the request says, and what a cold child would inherit `now`, where the image began with
/// `then`. Where it fails and a cold child, which needs no record, could be had, `ret_cold` says
/// why.
[[nodiscard]] Outcome make_child_record(const Request& request, const OwnerState& then,
                                        const OwnerState& now, const ChildTies& ties,
                                        ChildRecord& ret_record, ColdReason& ret_cold);

/// Sends the record to a parked child, with the write end of a pipe for its reply. Stage hand_off:
/// it has ended.
[[nodiscard]] Outcome send_record(const ChildRecord& record, const Born& spare, int reply);

/// Waits until the child is set up, or has failed to be. `born.pid` is filled in where the template
/// ended before it could tell. `reply`: where the child says so; its mailbox, unless it got a pipe.
/// A child that `is_late` tells of may still start.
[[nodiscard]] Outcome await_start(Born& born, int reply, Deadline deadline);

/// The child has not said anything in time, or whoever waited was interrupted (EINTR).
[[nodiscard]] bool is_late(const Outcome& failure);

/// Of a child that was forked on command and is late: from here on it cannot start any more, as it
/// ends where it cannot say so. What it has said before counts; otherwise it is `late`.
[[nodiscard]] Outcome give_up_start(Born& born, Outcome late);

/// "cannot be set up" in the words of the step.
void describe(Failure& failure, const Request& request);

}  // namespace warmfork
