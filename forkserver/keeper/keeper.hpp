// The near side of warmfork-keeper: start one, give it processes to look after.
#pragma once

#include <span>
#include <string>

#include "channel/deadline.hpp"
#include "channel/process_identity.hpp"
#include "protocol/keeper_messages.hpp"

namespace warmfork {

struct StartedKeeper {
    Descriptor socket;
    ProcessIdentity process;
};

/// How a keeper's answer is waited for: as poll(2). 0: it has not come in time, or whoever waits
/// was interrupted.
using AnswerPoll = int (*)(std::span<pollfd>, std::optional<std::chrono::steady_clock::time_point>);

/// Starts a keeper for the owner behind `owner_pidfd` and returns with it running. It is no child
/// of the caller, and its start is seen by no wait and no SIGCHLD handler there; but where the
/// caller adopts orphans (PID 1, a subreaper) it is adopted too, and then leaves with its last
/// child. Returns 0 or errno; ETIMEDOUT: it does not answer. Blocks about a millisecond.
[[nodiscard]] int start_keeper(const std::string& program, int owner_pidfd,
                               StartedKeeper& ret_keeper, AnswerPoll poll = poll_through_signals);

/// Gives a process, by its pidfd, to the keeper, and waits until that has it. Returns 0 or errno:
/// EPIPE or ECONNRESET: the keeper is gone; ETIMEDOUT: it does not answer within seconds, or the
/// wait was interrupted, and what is read from its socket is of no use any more; EMFILE: it has no
/// room; ETOOMANYREFS: nothing can be sent to it, or to any other one, as too many descriptors of
/// this user are in flight, which passes. Only one thread at a time may call it. With the `poll`
/// that is the default it is safe between vfork and exec.
[[nodiscard]] int give_to_keeper(int keeper, int pidfd, bool told_by_kernel,
                                 AnswerPoll poll = poll_through_signals);

/// Gives it a process that has an owner of its own, behind `owner_pidfd`. As long as the keeper's
/// owner lives, it is that owner's to see to. Returns when it is sent, or EAGAIN or ETOOMANYREFS
/// where it has to be tried again later. The answer is to be received when it comes.
[[nodiscard]] int send_for(int keeper, int pidfd, int owner_pidfd);
/// Receives the next answer, if there is one. Returns 0 or errno: EAGAIN: not yet; EPIPE: the
/// keeper is gone.
[[nodiscard]] int receive_answer(int keeper, KeeperAnswer& ret_answer);

/// Leaves processes, by their pidfds, to keepers that outlive the caller, until they or the owner
/// have ended. Returns 0 or errno: some are left to nobody.
[[nodiscard]] int leave_to_keepers(const std::string& program, int owner_pidfd,
                                   std::span<const int> pidfds, bool told_by_kernel);

}  // namespace warmfork
