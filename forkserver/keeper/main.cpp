// warmfork-keeper ends processes with their owner where no template is there to do it: cold
// children, and the children that a template leaves behind when it is closed. It is a process of
// its own because an owner that was killed cannot do anything any more.
//
// It begins with a socket and a pidfd of its owner, under the numbers in
// protocol/keeper_messages.hpp.
//
// Each message on the socket carries the pidfd of one more child, and is answered when it is looked
// after, or cannot be. The last one may say that no more will come: then the end of file is not the
// owner's death, and the keeper leaves with its last child.
//
// A child may come with the pidfd of an owner of its own: the children of a service, which belong
// to its clients. While the service lives it sees to them; when it has gone, the keeper does.
//
// Deaths. When the owner dies, or execs, its children are ended, also those whose messages still
// wait in the socket. When the keeper dies, the owner finds the end of file at its next call (a
// service at once), starts another one and tells it of all children; one for which the answer had
// not come yet is asked for again. When both die before that, what has a parent-death signal still
// ends by it. The keeper leaves only where it has no child; a message that is on its way then is
// not answered, and the owner asks the next keeper.
#include <signal.h>
#include <sys/epoll.h>
#include <sys/prctl.h>
#include <sys/resource.h>
#include <sys/socket.h>
#include <unistd.h>

#include <array>
#include <cstdlib>
#include <unordered_map>
#include <vector>

#include "channel/message_socket.hpp"
#include "channel/process_identity.hpp"
#include "channel/stopping_point.hpp"
#include "keeper/end_processes.hpp"
#include "keeper/keeper.hpp"

namespace {

using warmfork::Descriptor;
using warmfork::GuardedChild;

class Keeper {
  public:
    Keeper(Descriptor socket, Descriptor owner)
        : epoll_(::epoll_create1(EPOLL_CLOEXEC)),
          socket_(std::move(socket)),
          owner_(std::move(owner)),
          owner_pid_(warmfork::pid_of(owner_.get())),
          owner_stack_(stack_of_owner()) {}

    void run() {
        int error = epoll_ ? 0 : errno;
        if (!error) error = watch(socket_, kSocket);
        if (!error) error = watch(owner_, kOwner);
        warmfork::stopping_point("keeper.before-greeting");
        answer(error);
        if (error) return;
        while (!is_done()) dispatch();
    }

  private:
    struct Entry {
        GuardedChild child;
        Descriptor owner;  ///< its own; empty: this keeper's
        bool owner_has_ended = false;
    };

    // An event is about the socket, the owner, or a child: twice the child's number, plus one for
    // its owner.
    static constexpr std::uint64_t kSocket = 0, kOwner = 1, kFirstChild = 2;

    [[nodiscard]] int watch(const Descriptor& descriptor, std::uint64_t what) {
        epoll_event event{};
        event.events = EPOLLIN;
        event.data.u64 = what;
        return ::epoll_ctl(epoll_.get(), EPOLL_CTL_ADD, descriptor.get(), &event) < 0 ? errno : 0;
    }

    /// Must be called also before a close: others have the same open file, which would go on being
    /// watched.
    void unwatch(const Descriptor& descriptor) {
        if (descriptor) ::epoll_ctl(epoll_.get(), EPOLL_CTL_DEL, descriptor.get(), nullptr);
    }

    std::uint64_t stack_of_owner() const {
        return warmfork::process_statistic(owner_pid_, warmfork::kStackStartField);
    }

    bool is_done() const {
        if (!children_.empty()) return false;
        // An owner that has adopted this process may wait until it has no children.
        return owner_is_dead_ || !socket_ || (last_child_ > 0 && ::getppid() == owner_pid_);
    }

    void dispatch() {
        std::array<epoll_event, 64> events;
        const int count = ::epoll_wait(epoll_.get(), events.data(), events.size(), -1);
        if (count < 0 && errno != EINTR) std::abort();  // as if killed: the owner starts another
        for (int i = 0; i < count; ++i) {
            const std::uint64_t what = events[static_cast<std::size_t>(i)].data.u64;
            if (what == kOwner)
                note_owner_death();
            else if (what == kSocket)
                receive();
            else
                on_child(what);
        }
        if (owner_is_dead_) end_children_without_owner();
    }

    void on_child(std::uint64_t what) {
        const auto found = children_.find(what / 2);
        if (found == children_.end()) return;
        Entry& entry = found->second;
        unwatch(entry.owner);
        entry.owner_has_ended = true;
        if (what % 2) return;
        unwatch(entry.child.pidfd);
        children_.erase(found);
    }

    void note_owner_death() {
        unwatch(owner_);
        owner_is_dead_ = true;
    }

    /// Ends the owner's own children, and those whose owner has gone as well.
    void end_children_without_owner() {
        warmfork::stopping_point("keeper.owner-gone");
        while (socket_ && receive()) {
        }
        // An owner that lives on under another program (exec) has sent no parent-death signal.
        const bool is_alive = !warmfork::has_ended(owner_.get());
        std::vector<GuardedChild> ending;
        for (auto next = children_.begin(); next != children_.end();) {
            Entry& entry = next->second;
            if (entry.owner && !entry.owner_has_ended) {
                ++next;
                continue;
            }
            if (is_alive) entry.child.told_by_kernel = false;
            unwatch(entry.child.pidfd);
            ending.push_back(std::move(entry.child));
            next = children_.erase(next);
        }
        warmfork::end_processes(std::move(ending));
    }

    /// Returns false where there is nothing more to receive.
    bool receive() {
        warmfork::KeeperMessage message{};
        int numbers[2] = {-1, -1};
        warmfork::ReceivedMessage received;
        if (receive_message(socket_.get(), std::as_writable_bytes(std::span(&message, 1)), numbers,
                            MSG_DONTWAIT, received))
            return false;
        Descriptor pidfd(numbers[0]), owner(numbers[1]);
        if (received.size == 0) {
            note_end_of_file();
            return false;
        }
        warmfork::stopping_point("keeper.before-child");
        if (message.no_more_children)
            no_more_children_ = true;
        else if (received.descriptors_truncated)
            answer(EMFILE);
        else if (!pidfd)
            answer(EBADMSG);
        else
            answer(add({{std::move(pidfd), message.told_by_kernel != 0}, std::move(owner)}));
        return true;
    }

    [[nodiscard]] int add(Entry entry) {
        const std::uint64_t what = 2 * (kFirstChild + last_child_++);
        int error = watch(entry.child.pidfd, what);
        if (!error && entry.owner) {
            error = watch(entry.owner, what + 1);
            if (error) unwatch(entry.child.pidfd);
        }
        if (!error) children_.emplace(what / 2, std::move(entry));
        warmfork::stopping_point("keeper.child-taken");
        return error;
    }

    /// Notes that the owner has died, has become another program, or has closed a descriptor that
    /// it did not open. In the last case it still has its children.
    void note_end_of_file() {
        unwatch(socket_);
        socket_.reset();
        const bool is_same = owner_stack_ != 0 && stack_of_owner() == owner_stack_;
        if (!no_more_children_ && !is_same) note_owner_death();
    }

    /// Answers the owner. Where that fails the owner has gone, or does not listen; its death is
    /// noticed anyway.
    void answer(int error) {
        const warmfork::ProcessIdentity self = warmfork::identify_self();
        const warmfork::KeeperAnswer answer{error, self.pid, self.mark};
        static_cast<void>(warmfork::send_message(socket_.get(), warmfork::bytes_of(answer), {}, {},
                                                 MSG_DONTWAIT));
    }

    Descriptor epoll_;
    Descriptor socket_;
    Descriptor owner_;
    const pid_t owner_pid_;
    const std::uint64_t owner_stack_;
    std::unordered_map<std::uint64_t, Entry> children_;
    std::uint64_t last_child_ = 0;
    bool no_more_children_ = false;
    bool owner_is_dead_ = false;
};

}  // namespace

int main() {
    ::prctl(PR_SET_NAME, "warmfork-keeper", 0, 0, 0);
    ::signal(SIGPIPE, SIG_IGN);
    rlimit limit{};  // each child is a descriptor
    ::getrlimit(RLIMIT_NOFILE, &limit);
    limit.rlim_cur = limit.rlim_max;
    ::setrlimit(RLIMIT_NOFILE, &limit);
    Keeper keeper{Descriptor(warmfork::kKeeperSocketNumber),
                  Descriptor(warmfork::kKeeperOwnerNumber)};
    keeper.run();
}
