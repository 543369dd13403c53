// What a cold child would inherit from the owner at this moment, and how a warm one gets it: some
// of it travels in the record, the rest must be as it was when the template started.
#pragma once

#include <sys/resource.h>
#include <sys/types.h>

#include <array>
#include <cstdint>
#include <string>
#include <string_view>

#include "owner/task_settings.hpp"
#include "protocol/limits.hpp"
#include "protocol/record.hpp"

namespace warmfork {

/// They are in the order of kNamespaceNames in owner_state.cpp.
using Namespaces = std::array<std::uint64_t, 9>;

struct OwnerState {
    std::string unknown = "it was not read";  ///< what of it is not known; empty: all is
    int unknown_error = 0;                    ///< the errno of that, or 0
    pid_t thread = 0;                         ///< whose it is

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
    std::string credentials;         ///< ids, groups, capabilities, seccomp, speculation: as
                                     ///< /proc/self/status shows them
    std::uint64_t capabilities = 0;  ///< the effective ones, which are among them
    std::string cgroup;
    std::string security_label;  ///< of AppArmor, SELinux or Smack
    std::string core_dump_filter;
    std::string host_name;  ///< and the domain's, which modules and libraries keep
    std::uint64_t root_mount = 0, root_device = 0, root_inode = 0;
    Namespaces namespaces{};  ///< by inode; 0: the kernel has none of that kind
    TaskSettings settings{};
};

/// Looks at the calling thread and its process. It takes some fifty system calls; descriptors of
/// /proc stay open between calls. It is thread safe.
[[nodiscard]] OwnerState read_owner_state();

/// Does the same, and leaves no descriptor open.
[[nodiscard]] OwnerState read_owner_state_once();

/// Whose child a warm one is.
enum class Parent {
    owner,    ///< its owner's, whose template it comes from
    service,  ///< of a service whose session, cgroup and oom_score_adj it has: documented as such
};

/// Returns why a child of a template that was started under `then` cannot become what a cold child
/// of `now` is, or an empty text. What is not known of either counts as changed.
[[nodiscard]] std::string find_incompatible_change(const OwnerState& then, const OwnerState& now,
                                                   Parent parent = Parent::owner);

/// Returns why no template would have children like the cold ones of `now`, so that starting
/// another one does not help, or an empty text.
[[nodiscard]] std::string find_lasting_obstacle(const OwnerState& now,
                                                Parent parent = Parent::owner);

/// Do children of the calling thread begin in another pid namespace than its own (after unshare)?
/// The first of them is that namespace's first process, and the namespace ends with it.
[[nodiscard]] bool has_children_elsewhere();

/// Makes a text of the state, which another process can read.
[[nodiscard]] std::string encode_owner_state(const OwnerState& state);
/// Reads such a text. Where it is none, `unknown` says so.
[[nodiscard]] OwnerState decode_owner_state(std::string_view text);

/// Is it only the thread of `now` that differs, in what every thread has for itself, while the one
/// of `then`, which started the template, is as it was? A template for the one would not fit the
/// other.
[[nodiscard]] bool is_of_one_thread(const OwnerState& then, const OwnerState& now);

/// May this process look at another one of its own user? Landlock, which no other sign shows,
/// forbids it where that one is not bound by it as well.
[[nodiscard]] bool can_look_at(pid_t pid);

/// Can a process of this state have confined itself by Landlock at all, unseen? To do so takes
/// no_new_privs or CAP_SYS_ADMIN, and a kernel that has it.
[[nodiscard]] bool may_have_been_confined(const OwnerState& state);
/// May this kernel have Landlock? It has none where it says so.
[[nodiscard]] bool is_landlock_there();

/// Puts into the record what differs between `then` and `now`, except what the request itself sets.
/// Signals are not among it: they depend on the request in more than one way.
void add_differences(const OwnerState& then, const OwnerState& now, RecordContents& contents);

}  // namespace warmfork
