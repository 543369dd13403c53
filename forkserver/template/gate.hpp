// The fork-safety gate: may this process be forked now, and if not, what is in the way?
#pragma once

#include <array>
#include <cstdint>
#include <span>
#include <string>
#include <string_view>
#include <unordered_set>
#include <vector>

#include "protocol/preload_interface.hpp"

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

/// Something that preloading has done and that each child would do anew, or would have different.
struct Finding {
    std::string name;  ///< by which it can be allowed: "identity:MODULE", "output:MODULE", ...
    std::string text;
};

/// Exceptions from the gate: "thread:NAME" (a comm), "descriptor:PREFIX" (of the target that
/// /proc/self/fd shows), "mapping:PREFIX" (of the name in /proc/self/maps), or the name of a
/// finding, for which the name of a module's package stands as well.
class AllowList {
  public:
    AllowList() = default;
    explicit AllowList(std::vector<std::string> entries) : entries_(std::move(entries)) {}
    // None of these allocates.
    bool thread(std::string_view name) const;
    bool descriptor(std::string_view target) const;
    bool mapping(std::string_view name) const;
    bool finding(std::string_view name) const;

  private:
    bool has_prefix(std::string_view kind, std::string_view text) const;

    std::vector<std::string> entries_;
};

/// Returns the threads of this process, the calling one included.
[[nodiscard]] std::vector<ThreadFact> list_threads();

/// Returns the descriptors of this process that are not warmfork's own (`own`, sorted), in order of
/// number.
[[nodiscard]] std::vector<DescriptorFact> list_descriptors(std::span<const int> own);

/// May this process be forked at this moment? That is asked between the prepare handlers and the
/// fork, when one of them may have taken the lock that malloc takes, or that of any library. So
/// whatever this needs is made before, what it finds is put into words after, and in between it
/// only makes system calls.
class ForkCheck {
  public:
    explicit ForkCheck(AllowList allowed) : allowed_(std::move(allowed)) {}

    /// Must be called before the prepare handlers. `own` are warmfork's descriptors, sorted.
    void prepare(std::vector<int> own);
    /// Returns whether it is safe. Looks for further threads again for up to 200 ms: the kernel
    /// counts a thread for a while after pthread_join has returned. Descriptors are listed only if
    /// their number is not the one of the last look. No allocation, no lock.
    [[nodiscard]] bool run();
    /// Must be called after the parent handlers. `added` is how many descriptors the caller has
    /// opened since `prepare`; where others have come or gone the next look lists them.
    void finish(std::size_t added);
    /// Returns why it was not safe.
    [[nodiscard]] std::string obstacle() const;

    const AllowList& allowed() const { return allowed_; }

  private:
    /// Something in the way. Where there is more than there is room for, only the count is kept.
    struct Found {
        int number;
        std::array<char, 96> name;  ///< NUL-terminated
    };
    static constexpr std::size_t kMostFound = 16;

    void note(int number, std::string_view name);
    [[nodiscard]] bool find_other_threads();
    [[nodiscard]] bool find_hazardous_descriptors();
    [[nodiscard]] std::string list_found() const;

    AllowList allowed_;
    std::vector<int> own_;
    std::size_t open_before_ = 0;  ///< descriptors, at `prepare`
    std::size_t checked_ = 0;      ///< how many were open at the last look; 0: unknown
    enum class Kind : std::uint8_t { threads, descriptors } kind_{};  ///< what was looked at last
    int error_ = 0;  ///< why that could not be listed
    std::size_t count_ = 0;
    std::array<Found, kMostFound> found_;
};

/// These return what is in the way, in words. `own` are addresses of shared memory that is
/// warmfork's.
[[nodiscard]] std::string mappings_in_the_way(const AllowList& allowed,
                                              const std::unordered_set<const void*>& own);
[[nodiscard]] std::string findings_in_the_way(const AllowList& allowed,
                                              std::span<const Finding> findings);
[[nodiscard]] std::string libraries_in_the_way(const PreloadInterface& preload);

}  // namespace warmfork
