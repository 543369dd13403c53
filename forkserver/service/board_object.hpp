// What the daemon's and the readers' views of a statistics board share: its name, its owner, and
// whether that daemon is still there.
#pragma once

#include <sys/types.h>

#include <boost/interprocess/exceptions.hpp>
#include <boost/interprocess/shared_memory_object.hpp>
#include <cstdint>
#include <string>
#include <string_view>

namespace warmfork {

/// Returns "warmfork-UID" or "warmfork-UID-INSTANCE", or an empty name where no instance can have
/// that one (up to 64 of letters, digits and `.-_@:`).
[[nodiscard]] std::string board_name(uid_t uid, std::string_view instance);

/// Opens a board that exists. It must belong to `uid`, as everybody may put something of this name
/// where shared memory lies. Returns 0 or errno: ENOENT, EACCES (somebody else's, or not a file at
/// all).
[[nodiscard]] int open_board(const std::string& name, uid_t uid, boost::interprocess::mode_t mode,
                             boost::interprocess::shared_memory_object& ret_object,
                             std::uint64_t& ret_size);

/// Returns what the kernel said; never 0.
[[nodiscard]] int errno_of(const boost::interprocess::interprocess_exception& error);

/// Returns when a process started, in clock ticks since boot, or 0 where there is none, or it has
/// ended and was not waited for. With the pid it names a process for good, until the next boot,
/// which no shared memory survives.
[[nodiscard]] std::uint64_t process_start_ticks(std::uint64_t pid);

/// Returns the time of CLOCK_BOOTTIME, which all processes share.
[[nodiscard]] std::uint64_t nanoseconds_since_boot();

}  // namespace warmfork
