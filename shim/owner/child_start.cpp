#include "owner/child_start.hpp"

#include <poll.h>
#include <sys/socket.h>
#include <unistd.h>

#include <cerrno>

#include "channel/message_socket.hpp"
#include "owner/child_record.hpp"
#include "protocol/messages.hpp"

namespace warmfork {

Outcome send_record(const ChildRecord& record, const Born& spare, int reply) {
    MailboxHeader header{kMailboxMagic, static_cast<std::uint32_t>(record.bytes.size())};
    std::span<const std::byte> body = record.bytes;
    std::vector<int> sent{reply};
    if (record.memfd) {
        sent.push_back(record.memfd.get());
        header.record_size = 0;
        body = {};
    }
    sent.insert(sent.end(), record.descriptors.begin(), record.descriptors.end());
    const int error = send_message(spare.mailbox.get(), bytes_of(header), body, sent, 0);
    if (error == EBADF)
        return make_failure(Stage::descriptors, error, "a descriptor of the request is not open");
    if (error == ETOOMANYREFS)
        return make_failure(Stage::descriptors, error, "too many descriptors are in flight");
    if (error) return make_failure(Stage::hand_off, error, "the parked child has ended");
    return {};
}

bool is_late(const Outcome& failure) {
    return failure && failure->stage == Stage::hand_off &&
           (failure->error_number == ETIMEDOUT || failure->error_number == EINTR);
}

namespace {

Failure late_failure() {
    if (was_interrupted())
        return make_failure(Stage::hand_off, EINTR, "the wait for the child was broken off");
    return {Stage::hand_off, ETIMEDOUT, 0,
            "the child has not started after " + std::to_string(kStartPatience.count()) +
                " seconds: a fork handler of what is preloaded does not return, or the process is "
                "stopped"};
}

/// Reads what the child behind a reply pipe or a mailbox has said last, before it closed it.
Outcome read_reply(int descriptor, Deadline deadline, MailboxReply& ret_reply) {
    do {
        pollfd said{descriptor, POLLIN, 0};
        if (poll_until(std::span(&said, 1), deadline) == 0) return late_failure();
        ssize_t size;
        // ECONNRESET means that it has left something unread. The kernel says so once, ahead of
        // what the child has said.
        do size = ::read(descriptor, &ret_reply, sizeof ret_reply);
        while (size < 0 && (errno == EINTR || errno == ECONNRESET));
        if (size != sizeof ret_reply)
            return Failure{Stage::hand_off, ECHILD, 0, "the child ended before it was set up"};
    } while (ret_reply.kind == ReplyKind::parked);
    if (ret_reply.kind == ReplyKind::started) return {};
    if (ret_reply.stage == Stage::gate)
        return Failure{
            Stage::gate, ret_reply.error_number, 0,
            "a fork handler has started threads in the child, which cannot take over its "
            "signal mask or no_new_privs"};
    return make_failure(ret_reply.stage, ret_reply.error_number, "the child cannot be set up",
                        ret_reply.detail);
}

}  // namespace

Outcome await_start(Born& born, int reply, Deadline deadline) {
    // It waits not for the reply, but for the end of file behind it. A message wakes its reader on
    // the sender's processor, where it would take the child's place in the moment of its start; a
    // hang-up wakes it wherever a processor is idle.
    pollfd hang_up{reply, 0, 0};
    if (poll_until(std::span(&hang_up, 1), deadline) == 0) return late_failure();
    MailboxReply said{};
    Outcome failure = read_reply(reply, deadline, said);
    // A child that did not get the pipe says so in its mailbox.
    if (failure && said.pid == 0 && reply != born.mailbox.get())
        failure = read_reply(born.mailbox.get(), deadline, said);
    if (said.pid != 0) born.pid = said.pid, born.mark = said.mark;
    return failure;
}

Outcome give_up_start(Born& born, Outcome late) {
    // Somebody has closed the mailbox, and the child cannot say anything either.
    if (!born.mailbox.is_intact()) return late;
    ::shutdown(born.mailbox.get(), SHUT_RD);
    MailboxReply said{};
    const Outcome last = read_reply(born.mailbox.get(), WaitClock::now(), said);
    if (said.pid != 0) born.pid = said.pid, born.mark = said.mark;
    const bool has_said = !last || last->stage != Stage::hand_off;
    return has_said ? last : late;
}

/// Says which step has failed. At first every step says "the child cannot be set up".
void describe(Failure& failure, const Request& request) {
    if (failure.error_number == ETOOMANYREFS)
        return;  // it is of sending, and no step of the child's
    std::string what;
    switch (failure.stage) {
        case Stage::directory:
            what = "cannot change to directory " + std::string(request.contents().directory.empty()
                                                                   ? "."
                                                                   : request.contents().directory);
            break;
        case Stage::descriptors:
            what = failure.detail < 0 ? "cannot close what is not for the child"
                                      : "cannot place descriptor " +
                                            std::to_string(failure.detail) + " of the child";
            break;
        case Stage::session:
            what = "cannot enter the session or process group";
            break;
        case Stage::limits:
            what = "cannot set the child's limits";
            break;
        default:
            return;
    }
    failure = make_failure(failure.stage, failure.error_number, what, failure.detail);
}

}  // namespace warmfork
