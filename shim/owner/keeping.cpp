#include "owner/keeping.hpp"

#include <poll.h>
#include <sys/wait.h>

#include <atomic>
#include <condition_variable>
#include <mutex>
#include <new>
#include <thread>

#include "keeper/keeper.hpp"
#include "owner/companions.hpp"
#include "owner/owned_sockets.hpp"
#include "owner/owner_state.hpp"
#include "owner/running_list.hpp"
#include "owner/waiting.hpp"

namespace warmfork {
namespace {

// How many keepers are tried for one child, before it goes without.
constexpr int kMostTries = 4;

struct Keeper {
    OwnedSocket socket;
    ProcessIdentity process;
    bool is_full = false;
    /// It did not answer in time, so it has been stopped. Its socket stays open, as the end of file
    /// means this process's death to it, and another one is told of its children as well.
    bool is_stuck = false;
};

struct TrackedChild : ProcessIdentity {
    bool told_by_kernel = false;
    bool is_told = false;  ///< to a keeper that has not been found dead since
};

/// Is it a lack with which a plain spawn may go on? A keeper is told of the child later, as it is
/// where whoever waits was interrupted.
bool is_lack_of_resources(int error) {
    return error == EAGAIN || error == EINTR || error == ENOMEM || error == EMFILE ||
           error == ENFILE || error == ETIMEDOUT || error == ETOOMANYREFS;
}

bool has_gone(const Keeper& keeper) {
    pollfd polled{keeper.socket.get(), 0, 0};
    return !keeper.socket.is_intact() ||
           (::poll(&polled, 1, 0) > 0 && (polled.revents & (POLLHUP | POLLERR)));
}

/// The keepers of a process: one, started when the first cold child needs it, and more where that
/// has no room. They may be killed at any time, and are found dead at the next call. Another one is
/// then told what the dead one had been told. A child may have two keepers, as one was only
/// stopped, or the application has closed its socket, which does no harm. One thread at a time has
/// to do with them. It holds no lock while it waits, as a signal's handler may come back here.
class Keepers {
  public:
    Outcome give(const ProcessIdentity& child, int pidfd) {
        const Turn turn(*this);
        if (!turn.is_mine()) {
            add_late({child, false, false});
            return {};
        }
        refresh(poll_until);
        const int error = tell(pidfd, false, poll_until);
        if (error && !is_lack_of_resources(error))
            return make_failure(Stage::fork, error, "cannot give the child to a warmfork-keeper");
        children_.add({child, false, error == 0});
        has_untold_ = has_untold_ || error;
        return {};
    }

    Outcome spawn(ColdPlan& plan, ColdProcess& ret_process) {
        const Turn turn(*this);
        plan.keeper_error = 0;
        const bool told_by_kernel = plan.record.header.flags & kRecordParentDeathSignal;
        if (!turn.is_mine()) {
            plan.keeper = -1;
            Outcome failure = spawn_cold(plan, ret_process);
            if (!failure) add_late({ret_process.identity, told_by_kernel, false});
            return failure;
        }
        for (int tries = 0;; ++tries) {
            refresh(poll_until);
            int error = 0;
            // No keeper can be told of the child now, nor could any other one be.
            const bool may_be_told = plan.keeper_error != ETOOMANYREFS && tries < kMostTries;
            Keeper* keeper = may_be_told ? find(error, poll_until) : nullptr;
            if (error && !is_lack_of_resources(error))
                return make_failure(Stage::launch, error, "cannot start warmfork-keeper");
            plan.keeper = keeper ? keeper->socket.get() : -1;
            if (Outcome failure = spawn_cold(plan, ret_process)) {
                if (!plan.keeper_error) return failure;
                note_failure(*keeper, plan.keeper_error);
                continue;
            }
            children_.add({ret_process.identity, told_by_kernel, keeper != nullptr});
            has_untold_ = has_untold_ || !keeper;
            return {};
        }
    }

    void give_when_possible(const ProcessIdentity& child) {
        add_late({child, false, false});
        // Whoever calls may hold a lock, so nobody is asked for an interruption.
        const Turn turn(*this, false);
        if (turn.is_mine()) refresh(poll_through_signals);
    }

    void look_after() {
        const Turn turn(*this, false);
        if (turn.is_mine()) refresh(poll_until);
    }

  private:
    /// The turn to have to do with the keepers. It is waited for, unless `waits` is false, until
    /// that is interrupted; not where this very thread has it, which a signal's handler has
    /// interrupted.
    class Turn {
      public:
        explicit Turn(Keepers& keepers, bool waits = true) : keepers_(keepers) {
            std::unique_lock lock(keepers.mutex_);
            while (keepers.is_taken_) {
                if (!waits || keepers.taken_by_ == std::this_thread::get_id()) return;
                if (!may_be_interrupted()) {
                    keepers.given_back_.wait(lock);
                    continue;
                }
                keepers.given_back_.wait_until(lock, *next_look({}));
                lock.unlock();
                if (check_interruption()) return;
                lock.lock();
            }
            keepers.is_taken_ = is_mine_ = true;
            keepers.taken_by_ = std::this_thread::get_id();
        }
        /// What has come late meanwhile is told first: nobody may ever have another turn.
        ~Turn() {
            while (is_mine_ && !keepers_.give_back_turn()) keepers_.tell_late();
        }
        Turn(const Turn&) = delete;
        Turn& operator=(const Turn&) = delete;
        [[nodiscard]] bool is_mine() const { return is_mine_; }

      private:
        Keepers& keepers_;
        bool is_mine_ = false;
    };

    /// Returns false where a child has come late: the turn goes on then.
    bool give_back_turn() {
        const std::lock_guard lock(mutex_);
        if (!late_.empty()) return false;
        is_taken_ = false;
        given_back_.notify_all();
        return true;
    }

    /// Adds a child of which a keeper is to be told by whoever has the turn, or the next one.
    void add_late(const TrackedChild& child) {
        const std::lock_guard lock(mutex_);
        late_.push_back(child);
    }

    void take_late() {
        const std::lock_guard lock(mutex_);
        for (const TrackedChild& child : std::exchange(late_, {})) {
            children_.add(child);
            has_untold_ = true;
        }
    }

    // What follows is for whoever has the turn.

    void tell_late() noexcept try { refresh(poll_through_signals); } catch (const std::bad_alloc&) {
        // There is nobody to tell: their spawns have succeeded.
    }

    /// Finds the dead, so it must be called first.
    void refresh(AnswerPoll poll) {
        take_late();
        const std::size_t dead = std::erase_if(keepers_, [](const Keeper& keeper) {
            if (!has_gone(keeper)) return false;
            // Where this process adopts orphans the keeper was one of its children.
            if (const Descriptor pidfd = open_process(keeper.process))
                static_cast<void>(reap(pidfd.get(), WNOHANG, nullptr, nullptr));
            return true;
        });
        if (dead > 0) {
            for (TrackedChild& child : children_.entries()) child.is_told = false;
            has_untold_ = !children_.entries().empty();
        }
        if (has_untold_) tell_untold(poll);
    }

    void tell_untold(AnswerPoll poll) {
        for (TrackedChild& child : children_.entries()) {
            if (child.is_told) continue;
            const Descriptor pidfd = open_process(child);
            if (!pidfd && errno != ESRCH) return;
            if (pidfd && !has_ended(pidfd.get()) && tell(pidfd.get(), child.told_by_kernel, poll))
                return;
            child.is_told = true;
        }
        has_untold_ = false;
    }

    int tell(int pidfd, bool told_by_kernel, AnswerPoll poll) {
        int error = ETIMEDOUT;
        for (int tries = 0; tries < kMostTries; ++tries) {
            int start_error = 0;
            Keeper* const keeper = find(start_error, poll);
            if (!keeper) return start_error;
            error = give_to_keeper(keeper->socket.get(), pidfd, told_by_kernel, poll);
            if (!error || error == ETOOMANYREFS) return error;
            note_failure(*keeper, error);
            // It may answer in time, and nobody will have waited for that.
            if (was_interrupted()) return EINTR;
        }
        return error;
    }

    /// Returns the newest that is of use, or a new one where there is none, or null with the reason
    /// in `ret_error`.
    Keeper* find(int& ret_error, AnswerPoll poll) {
        for (auto keeper = keepers_.rbegin(); keeper != keepers_.rend(); ++keeper)
            if (!keeper->is_full && !keeper->is_stuck) return &*keeper;
        // These have room again by the time the one that is started now is full.
        for (Keeper& keeper : keepers_) keeper.is_full = false;
        const std::string program = find_companion("warmfork-keeper");
        const Descriptor owner = open_pidfd(::getpid());
        StartedKeeper started;
        ret_error = program.empty() ? ENOENT : !owner ? errno : EPIPE;
        // EPIPE means that it was killed before it could say a word.
        for (int tries = 0; ret_error == EPIPE && tries < kMostTries; ++tries)
            ret_error = start_keeper(program, owner.get(), started, poll);
        if (ret_error) return nullptr;
        keepers_.push_back({OwnedSocket(std::move(started.socket)), started.process});
        return &keepers_.back();
    }

    /// Notes a failure. The next `refresh` finds a keeper that has gone, and tells another one what
    /// it was told.
    void note_failure(Keeper& keeper, int error) {
        if (error == ETOOMANYREFS) return;  // which is not the keeper's fault
        if (error == EMFILE || error == ENOMEM || error == ENOSPC) {
            keeper.is_full = true;
            return;
        }
        keeper.is_stuck = true;
        for (TrackedChild& child : children_.entries()) child.is_told = false;
        has_untold_ = true;
    }

    std::vector<Keeper> keepers_;
    RunningList<TrackedChild> children_;
    bool has_untold_ = false;

    std::mutex mutex_;  ///< of what follows
    std::condition_variable given_back_;
    bool is_taken_ = false;
    std::thread::id taken_by_;
    std::vector<TrackedChild> late_;
};

struct Instance {
    pid_t owner = ::getpid();
    Keepers keepers;
};

std::atomic<Instance*> current{nullptr};  // never destroyed: used until the very end

/// Returns this process's keepers. A forked copy makes its own: the turn of the first may be held
/// for ever by a thread that the copy does not have.
Keepers& keepers() {
    Instance* instance = current.load();
    if (!instance || instance->owner != ::getpid()) {
        auto* fresh = new Instance;
        if (current.compare_exchange_strong(instance, fresh))
            instance = fresh;
        else
            delete fresh;  // another thread was quicker, and `instance` is its
    }
    return instance->keepers;
}

}  // namespace

Outcome give_child_to_keeper(const ProcessIdentity& child) {
    const Descriptor pidfd = open_process(child);
    if (!pidfd) return make_failure(Stage::fork, errno, "cannot open a pidfd of the child");
    return keepers().give(child, pidfd.get());
}

void give_child_to_keeper_when_possible(const ProcessIdentity& child) {
    keepers().give_when_possible(child);
}

Outcome spawn_with_keeper(ColdPlan& plan, ColdProcess& ret_process) {
    // A keeper would be the first process of the namespace that the child is to begin in, and the
    // namespace would end with it.
    if (plan.record.header.lifetime == Lifetime::detached || has_children_elsewhere())
        return spawn_cold(plan, ret_process);
    return keepers().spawn(plan, ret_process);
}

void look_after_keepers() {
    Instance* const instance = current.load();
    if (instance && instance->owner == ::getpid()) instance->keepers.look_after();
}

}  // namespace warmfork
