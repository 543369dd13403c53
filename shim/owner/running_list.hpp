// A list of processes that are to be ended one day, and must not grow by those that have ended.
#pragma once

#include <algorithm>
#include <vector>

#include "channel/process_identity.hpp"

namespace warmfork {

/// `Entry` is a ProcessIdentity, or derives from it. The list is not thread safe.
template <typename Entry>
class RunningList {
  public:
    void add(Entry entry) {
        entries_.push_back(std::move(entry));
        if (entries_.size() < prune_at_) return;
        // This is done each time the list has doubled, so it costs a few system calls for each
        // entry that is added.
        std::erase_if(entries_, [](const Entry& process) { return !is_running(process); });
        prune_at_ = std::max(kFewest, 2 * entries_.size());
    }
    /// Returns the entries, perhaps with some that have ended.
    std::vector<Entry>& entries() { return entries_; }

  private:
    static constexpr std::size_t kFewest = 64;

    std::vector<Entry> entries_;
    std::size_t prune_at_ = kFewest;
};

}  // namespace warmfork
