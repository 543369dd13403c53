// warmfork-keeper: ends processes with their owner where no template is there to do it: cold
// children, and the children that a template leaves behind when it is closed. A process of its own
// because an owner that was killed cannot do anything any more.
//
// usage: warmfork-keeper SOCKET OWNER_PIDFD
//
// Each message on SOCKET carries the pidfd of one more ward. The last one may say that no more will
// come: then the end of file is not the owner's death, and the keeper leaves with its last ward.
//
// A ward may come with the pidfd of an owner of its own: the children of a service, which belong to
// its clients. While the service lives it sees to them; when it has gone, the keeper does.
#include <poll.h>
#include <signal.h>
#include <sys/prctl.h>
#include <sys/resource.h>
#include <sys/socket.h>
#include <unistd.h>

#include <cstdlib>

#include "channel/message_socket.hpp"
#include "keeper/end_processes.hpp"
#include "keeper/keeper.hpp"

namespace {

using warmfork::Descriptor;
using warmfork::Ward;

class Keeper {
  public:
    Keeper(Descriptor socket, Descriptor owner)
        : socket_(std::move(socket)), owner_(std::move(owner)) {}

    void run() {
        while (!owner_is_dead_ && (socket_ || !wards_.empty())) wait_and_dispatch();
        if (!owner_is_dead_) return;
        while (socket_ && receive(MSG_DONTWAIT)) {
        }
        end_wards_of_owner();
        while (!wards_.empty()) wait_and_dispatch();
    }

  private:
    struct Kept {
        Ward ward;
        Descriptor owner;  ///< its own; empty: this keeper's
    };

    void end_wards_of_owner() {
        // One that lives on under another program (exec) has sent no parent-death signal.
        pollfd owner{owner_.get(), POLLIN, 0};
        const bool is_alive = ::poll(&owner, 1, 0) == 0;
        std::vector<Ward> ending;
        for (Kept& kept : wards_) {
            if (kept.owner) continue;
            if (is_alive) kept.ward.told_by_kernel = false;
            ending.push_back(std::move(kept.ward));
        }
        std::erase_if(wards_, [](const Kept& kept) { return !kept.owner; });
        warmfork::end_processes(std::move(ending));
    }

    void wait_and_dispatch() {
        std::vector<pollfd> polled{{owner_is_dead_ ? -1 : owner_.get(), POLLIN, 0},
                                   {socket_.get(), POLLIN, 0}};
        for (const Kept& kept : wards_) {
            polled.push_back({kept.ward.pidfd.get(), POLLIN, 0});
            polled.push_back({owner_is_dead_ ? kept.owner.get() : -1, POLLIN, 0});
        }
        if (::poll(polled.data(), polled.size(), -1) < 0) return;
        if (polled[0].revents) owner_is_dead_ = true;
        std::vector<Kept> running;
        std::vector<Ward> ending;
        for (std::size_t i = 0; i < wards_.size(); ++i) {
            if (polled[2 * i + 2].revents) continue;
            if (polled[2 * i + 3].revents)
                ending.push_back(std::move(wards_[i].ward));
            else
                running.push_back(std::move(wards_[i]));
        }
        wards_ = std::move(running);
        warmfork::end_processes(std::move(ending));
        if (socket_ && polled[1].revents) receive(0);
    }

    /// False: nothing more to receive.
    bool receive(int flags) {
        warmfork::KeeperMessage message{};
        int numbers[2] = {-1, -1};
        warmfork::ReceivedMessage received;
        const int error =
            receive_message(socket_.get(), std::as_writable_bytes(std::span(&message, 1)), numbers,
                            flags, received);
        if (error) return false;
        if (received.size == 0) {
            if (!no_more_wards_) owner_is_dead_ = true;  // it has called exec
            socket_.reset();
            return false;
        }
        if (message.no_more_wards) no_more_wards_ = true;
        if (received.descriptor_count > 0)
            wards_.push_back(
                {{Descriptor(numbers[0]), message.told_by_kernel != 0}, Descriptor(numbers[1])});
        return true;
    }

    Descriptor socket_;
    Descriptor owner_;
    std::vector<Kept> wards_;
    bool no_more_wards_ = false;
    bool owner_is_dead_ = false;
};

}  // namespace

int main(int argc, char** argv) {
    if (argc != 3) return 64;
    // Not a child of the owner: a program that waits for all its children must not wait for this
    // one.
    if (::fork() != 0) ::_exit(0);
    ::setsid();
    ::prctl(PR_SET_NAME, "warmfork-keeper", 0, 0, 0);
    ::signal(SIGPIPE, SIG_IGN);
    rlimit limit{};  // each ward is a descriptor
    ::getrlimit(RLIMIT_NOFILE, &limit);
    limit.rlim_cur = limit.rlim_max;
    ::setrlimit(RLIMIT_NOFILE, &limit);
    Keeper keeper(Descriptor(std::atoi(argv[1])), Descriptor(std::atoi(argv[2])));
    keeper.run();
}
