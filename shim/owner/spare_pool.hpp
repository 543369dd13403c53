// The parked children of one template, as its owner holds them: which of them may be taken, and
// which have yet to be reaped. It is not thread safe. Only `end_all` waits.
#pragma once

#include <cstdint>
#include <deque>
#include <map>
#include <optional>
#include <vector>

#include "owner/born.hpp"

namespace warmfork {

/// A spare that is older than this is not handed off: the kernel tells when a process was started.
inline constexpr std::chrono::seconds kOldestSpare{60};

class SparePool {
  public:
    /// Keeps the owner's end of a child's mailbox until the child is added.
    void add_mailbox(std::uint64_t id, OwnedSocket mailbox, WaitClock::time_point made);

    /// Adds a child that has been announced. Returns false where its mailbox did not arrive, as no
    /// number was free for it here; the child ends.
    [[nodiscard]] bool add(std::uint64_t id, const ProcessIdentity& child);

    /// Removes a child that has ended, or that its template has told to end. One that has been
    /// taken is left to whoever took it.
    void remove(std::uint64_t id);

    /// Takes the oldest child that has parked; where there is none and no child has been late, the
    /// oldest one that is about to park. The caller makes use of it, or gives it to one of the next
    /// two.
    [[nodiscard]] std::optional<Born> take();
    void give_back(Born spare);
    /// Lets a child end, which it does as its mailbox is closed here. It is reaped later.
    void let_end(Born spare) { let_end(spare.identity()); }
    /// Does the same for a child whose mailbox has not come to this process.
    void let_end(const ProcessIdentity& child) { ending_.push_back(child); }

    /// Drops the mailboxes of children that have not been announced. The template has ended, so
    /// none of them will be.
    void drop_mailboxes() { mailboxes_.clear(); }

    /// Notes that a child has not started in time. Until one that is younger than `youngest` has
    /// parked none is expected to.
    void note_late(std::uint64_t youngest);
    [[nodiscard]] bool is_slow() const { return late_at_ != 0; }

    [[nodiscard]] std::size_t size() const { return spares_.size(); }
    /// Returns how many have said that they have parked.
    [[nodiscard]] std::size_t count_parked();

    /// Reaps what has been let go of and has ended since.
    void reap_ended();
    /// Kills and reaps all that are left, which takes until they have ended.
    void end_all();

  private:
    void note_parked(Born& spare);

    std::deque<Born> spares_;                  ///< the oldest first
    std::map<std::uint64_t, Born> mailboxes_;  ///< of children that have not been announced yet
    std::vector<ProcessIdentity> ending_;
    std::uint64_t late_at_ = 0;  ///< the youngest child's id when one was late; 0: none was
};

}  // namespace warmfork
