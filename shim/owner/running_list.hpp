// A list of processes that are to be ended one day, and must not grow by those that have ended.
#pragma once

#include <algorithm>
#include <vector>

#include "channel/process_identity.hpp"

namespace warmfork {

/// `Entry` is a ProcessIdentity, or derives from it. Not thread safe.
template <typename Entry>
class RunningList {
  public:
    void add(Entry entry) {
        entries_.push_back(std::move(entry));
        if (entries_.size() < prune_at_) return;
        // At twice its size: so what this costs is a few system calls for each that is added.
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
