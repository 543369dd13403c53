// How a child that has been made is started: the record goes into its mailbox, and it answers.
#pragma once

#include "owner/born.hpp"
#include "owner/failure.hpp"
#include "owner/waiting.hpp"

namespace warmfork {

class Request;
struct ChildRecord;

/// Sends the record to a parked child, with the write end of a pipe for its reply. Fails at stage
/// hand_off where it has ended.
[[nodiscard]] Outcome send_record(const ChildRecord& record, const Born& spare, int reply);

/// Waits until the child is set up, or has failed to be. `born.pid` is filled in where the template
/// ended before it could tell. `reply` is where the child says so: its mailbox, unless it got a
/// pipe. Where the failure `is_late`, the child may still start.
[[nodiscard]] Outcome await_start(Born& born, int reply, Deadline deadline);

/// Has the child not said anything in time, or was whoever waited interrupted (EINTR)?
[[nodiscard]] bool is_late(const Outcome& failure);

/// Gives up a child that was forked on command and is late: from here on it cannot start any more,
/// as it ends where it cannot say so. What it has said before counts; otherwise `late` is returned.
[[nodiscard]] Outcome give_up_start(Born& born, Outcome late);

/// Says in the failure's text which step of the set-up has failed, and on what.
void describe(Failure& failure, const Request& request);

}  // namespace warmfork
