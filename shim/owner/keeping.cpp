#include "owner/keeping.hpp"

#include <atomic>
#include <mutex>

#include "keeper/keeper.hpp"
#include "owner/companions.hpp"
#include "owner/owned_sockets.hpp"
#include "owner/owner_state.hpp"

namespace warmfork {
namespace {

/// One keeper a process, started when the first cold child needs it.
class KeeperSocket {
  public:
    /// Calls `use` with the keeper's socket, once more with a new keeper if the first has gone.
    template <typename Use>
    Outcome with(Use use) {
        const std::lock_guard lock(mutex_);
        for (bool is_retry : {false, true}) {
            if (is_retry || !socket_.is_intact())
                if (Outcome failure = start()) return failure;
            Outcome failure = use(socket_.get());
            const bool has_gone =
                failure && failure->stage == Stage::fork &&
                (failure->error_number == EPIPE || failure->error_number == ECONNRESET);
            if (!has_gone || is_retry) return failure;
        }
        return {};
    }

  private:
    Outcome start() {
        const std::string program = find_companion("warmfork-keeper");
        const Descriptor owner = open_pidfd(::getpid());
        Descriptor keeper;
        const int error = program.empty() ? ENOENT
                          : !owner        ? errno
                                          : start_keeper(program, owner.get(), keeper);
        if (error) return make_failure(Stage::launch, error, "cannot start warmfork-keeper");
        socket_ = OwnedSocket(std::move(keeper));
        return {};
    }

    std::mutex mutex_;
    OwnedSocket socket_;
};

/// Of this process. A forked copy makes its own: the mutex of the first may be held for ever by a
/// thread that the copy does not have.
KeeperSocket& keeper_socket() {
    struct Instance {
        pid_t owner = ::getpid();
        KeeperSocket socket;
    };
    static std::atomic<Instance*> current{nullptr};  // never destroyed: used until the very end
    Instance* instance = current.load();
    if (!instance || instance->owner != ::getpid()) {
        auto* fresh = new Instance;
        if (current.compare_exchange_strong(instance, fresh))
            instance = fresh;
        else
            delete fresh;  // another thread was quicker, and `instance` is its
    }
    return instance->socket;
}

}  // namespace

Outcome keep_child(pid_t pid) {
    const Descriptor child = open_pidfd(pid);
    if (!child) return make_failure(Stage::fork, errno, "cannot open a pidfd of the child");
    return keeper_socket().with([&](int keeper) -> Outcome {
        const int error = keep(keeper, child.get(), false);
        return error ? Outcome(make_failure(Stage::fork, error, "cannot tell the keeper"))
                     : Outcome();
    });
}

Outcome spawn_kept(ColdPlan& plan, int& ret_pid) {
    // A keeper would be the first process of the namespace that the child is to begin in, and end
    // it with its own end.
    if (plan.record.header.lifetime == Lifetime::detached || has_children_elsewhere())
        return spawn_cold(plan, ret_pid);
    return keeper_socket().with([&](int keeper) {
        plan.keeper = keeper;
        return spawn_cold(plan, ret_pid);
    });
}

}  // namespace warmfork
