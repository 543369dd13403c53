// The fork-safety gate: may this process be forked now, and if not, what is in the way?
#pragma once

#include <string>
#include <unordered_set>
#include <vector>

#include "preload/interface.hpp"

namespace warmfork {

/// One thread, as the gate and `warmfork doctor` see it.
struct ThreadFact {
    int id;
    std::string name;
};

/// One open descriptor.
struct DescriptorFact {
    int number;
    std::string target;  ///< what /proc/self/fd says it is
    bool hazardous;      ///< its state would be shared by every child, or it is the template's own
                         ///< stream
};

/// Exceptions from the gate: "thread:NAME" (a comm), "descriptor:PREFIX" (of the target that
/// /proc/self/fd shows) or "mapping:PREFIX" (of the name in /proc/self/maps).
class AllowList {
  public:
    AllowList() = default;
    explicit AllowList(std::vector<std::string> entries) : entries_(std::move(entries)) {}
    bool thread(const std::string& name) const;
    bool descriptor(const std::string& target) const;
    bool mapping(const std::string& name) const;

  private:
    bool has_prefix(std::string_view kind, const std::string& text) const;

    std::vector<std::string> entries_;
};

/// The threads of this process, the calling one included.
[[nodiscard]] std::vector<ThreadFact> list_threads();

/// The descriptors of this process that are not warmfork's own (`own`), in order of number.
[[nodiscard]] std::vector<DescriptorFact> list_descriptors(const std::unordered_set<int>& own);

/// Why this process must not be forked, or an empty text. Looks for further threads again for up to
/// 10 ms: the kernel counts a thread for a while after pthread_join has returned.
[[nodiscard]] std::string threads_in_the_way(const AllowList& allowed);
[[nodiscard]] std::string descriptors_in_the_way(const AllowList& allowed,
                                                 const std::unordered_set<int>& own);
/// `own`: addresses of shared memory that is warmfork's.
[[nodiscard]] std::string mappings_in_the_way(const AllowList& allowed,
                                              const std::unordered_set<const void*>& own);
[[nodiscard]] std::string libraries_in_the_way(const PreloadInterface& preload);

}  // namespace warmfork
