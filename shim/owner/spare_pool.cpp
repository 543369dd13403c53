#include "owner/spare_pool.hpp"

#include <sys/socket.h>
#include <sys/wait.h>

#include <algorithm>
#include <cerrno>

#include "channel/message_socket.hpp"
#include "owner/cold.hpp"
#include "protocol/messages.hpp"

namespace warmfork {

void SparePool::add_mailbox(std::uint64_t id, OwnedSocket mailbox, WaitClock::time_point made) {
    Born& spare = mailboxes_[id];
    spare.mailbox = std::move(mailbox);
    spare.made = made;
}

bool SparePool::add(std::uint64_t id, const ProcessIdentity& child) {
    Born spare;
    if (auto found = mailboxes_.find(id); found != mailboxes_.end()) {
        spare = std::move(found->second);
        mailboxes_.erase(found);
    }
    spare.id = id;
    spare.pid = child.pid;
    spare.mark = child.mark;
    if (!spare.mailbox) {
        let_end(child);
        return false;
    }
    spares_.push_back(std::move(spare));
    return true;
}

void SparePool::remove(std::uint64_t id) {
    mailboxes_.erase(id);
    const auto spare = std::ranges::find(spares_, id, &Born::id);
    if (spare == spares_.end()) return;
    let_end(spare->identity());
    spares_.erase(spare);
}

std::optional<Born> SparePool::take() {
    while (!spares_.empty()) {
        auto next = std::ranges::find_if(spares_, [this](Born& spare) {
            note_parked(spare);
            return spare.has_parked;
        });
        if (next == spares_.end() && is_slow()) return {};
        if (next == spares_.end()) next = spares_.begin();
        Born spare = std::move(*next);
        spares_.erase(next);
        if (spare.mailbox.is_intact()) return spare;
        // Somebody has closed descriptors that were not theirs, and the spare has seen the end of
        // file.
        let_end(std::move(spare));
    }
    return {};
}

void SparePool::give_back(Born spare) {
    spares_.push_front(std::move(spare));
}

/// Looks at what a spare may have said, and leaves it in the mailbox: the spare may be leased to a
/// client of the service, who waits for it as well.
void SparePool::note_parked(Born& spare) {
    MailboxReply reply{};
    ReceivedMessage received;
    if (spare.has_parked || !spare.mailbox.is_intact() ||
        receive_message(spare.mailbox.get(), std::as_writable_bytes(std::span(&reply, 1)), {},
                        MSG_DONTWAIT | MSG_PEEK, received) ||
        received.size != sizeof reply)
        return;
    spare.has_parked = true;
    if (spare.id > late_at_) late_at_ = 0;
}

void SparePool::note_late(std::uint64_t youngest) {
    late_at_ = std::max<std::uint64_t>(youngest, 1);
}

std::size_t SparePool::count_parked() {
    std::size_t parked = 0;
    for (Born& spare : spares_) {
        note_parked(spare);
        parked += spare.has_parked;
    }
    return parked;
}

void SparePool::reap_ended() {
    std::erase_if(ending_, [](const ProcessIdentity& spare) {
        const Descriptor pidfd = open_process(spare);
        if (!pidfd) return errno == ESRCH;  // else no descriptor is free, and it has to wait
        return reap(pidfd.get(), WNOHANG, nullptr, nullptr) != EAGAIN;
    });
}

void SparePool::end_all() {
    for (const Born& spare : spares_) let_end(spare.identity());
    for (const ProcessIdentity& spare : ending_) end_child(spare);
}

}  // namespace warmfork
