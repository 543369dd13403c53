// How a child that has been made is started: the record on its way into the mailbox, and the
// answer.
#pragma once

#include "owner/born.hpp"
#include "owner/failure.hpp"
#include "owner/waiting.hpp"

namespace warmfork {

class Request;
struct ChildRecord;

/// Sends the record to a parked child, with the write end of a pipe for its reply. Stage hand_off:
/// it has ended.
[[nodiscard]] Outcome send_record(const ChildRecord& record, const Born& spare, int reply);

/// Waits until the child is set up, or has failed to be. `born.pid` is filled in where the template
/// ended before it could tell. `reply`: where the child says so; its mailbox, unless it got a pipe.
/// A child that `is_late` tells of may still start.
[[nodiscard]] Outcome await_start(Born& born, int reply, Deadline deadline);

/// The child has not said anything in time, or whoever waited was interrupted (EINTR).
[[nodiscard]] bool is_late(const Outcome& failure);

/// Gives up a child that was forked on command and is late: from here on it cannot start any more,
/// as it ends where it cannot say so. What it has said before counts; otherwise it is `late`.
[[nodiscard]] Outcome give_up_start(Born& born, Outcome late);

/// Puts "cannot be set up" into the words of the step.
void describe(Failure& failure, const Request& request);

}  // namespace warmfork
