// What a cold child would inherit from the owner at this moment, and how a warm one gets it: some
// of it travels in the record, the rest must be as it was when the template started.
#pragma once

#include <sys/resource.h>
#include <sys/types.h>

#include <array>
#include <cstdint>
#include <string>
#include <string_view>

#include "protocol/limits.hpp"
#include "protocol/record.hpp"

namespace warmfork {

struct OwnerState {
    bool is_known = false;  ///< false: /proc could not be read (no descriptor was free, no /proc)
    pid_t thread = 0;       ///< whose it is

    // A child can bring itself to these.
    std::uint64_t signals_ignored = 0;
    std::uint64_t signal_mask = 0;  ///< of the calling thread
    std::uint32_t file_mode_mask = 0;
    bool no_new_privileges = false;
    int nice = 0;
    int oom_score_adjust = 0;
    pid_t process_group = 0;
    std::array<rlimit, kResourceLimitCount> limits{};
    std::array<std::byte, kMaximumAffinitySize> affinity{};
    std::size_t affinity_size = 0;

    // To these it cannot.
    pid_t session = 0;
    std::string
        credentials;  ///< ids, groups, capabilities, seccomp, as /proc/self/status shows them
    std::string cgroup;
    std::uint64_t root_mount = 0, root_device = 0, root_inode = 0;
    int scheduler = 0, io_priority = 0;
    long personality = 0, secure_bits = 0, timer_slack = 0;
};

/// Looks at the calling thread and its process. Some twenty system calls; descriptors of /proc stay
/// open between calls. Thread safe.
[[nodiscard]] OwnerState read_owner_state();

/// The same, and no descriptor stays open.
[[nodiscard]] OwnerState read_owner_state_once();

/// Whose child a warm one is.
enum class Parent {
    owner,    ///< its owner's, whose template it comes from
    service,  ///< of a service whose session, cgroup and oom_score_adj it has: documented as such
};

/// Why a child of a template that was started under `then` cannot become what a cold child of `now`
/// is, or an empty text.
[[nodiscard]] std::string find_incompatible_change(const OwnerState& then, const OwnerState& now,
                                                   Parent parent = Parent::owner);

/// For another process.
[[nodiscard]] std::string encode_owner_state(const OwnerState& state);
/// `is_known` stays false where the text is not one.
[[nodiscard]] OwnerState decode_owner_state(std::string_view text);

/// Is it only the thread of `now` that differs, in what every thread has of its own, while the one
/// of `then`, which started the template, is as it was? A template for the one would not fit the
/// other.
[[nodiscard]] bool is_of_one_thread(const OwnerState& then, const OwnerState& now);

/// May this process look at its template? Where it could when the template was fresh and no longer
/// can, it has entered a confinement that no other sign shows and that a warm child would not be
/// bound by: another user namespace, or Landlock.
[[nodiscard]] bool can_compare_with(pid_t template_pid);

/// Puts into the record what differs between `then` and `now`, except what the request itself sets.
/// Signals are not among it: they depend on the request in more than one way.
void add_differences(const OwnerState& then, const OwnerState& now, RecordContents& contents);

}  // namespace warmfork
