// Waits that last until a moment, whatever signals come meanwhile.
#pragma once

#include <poll.h>

#include <chrono>
#include <optional>
#include <span>

namespace warmfork {

/// Returns how much time is left, in milliseconds, for poll(2). Nothing: for ever.
[[nodiscard]] int milliseconds_until(std::optional<std::chrono::steady_clock::time_point> deadline);

/// poll(2), which a signal neither ends nor draws out. Returns how many are ready; 0: the deadline
/// has passed; -1 with errno set, never EINTR: whether one is ready cannot be told. No allocation;
/// safe between vfork and exec.
[[nodiscard]] int poll_through_signals(
    std::span<pollfd> polled, std::optional<std::chrono::steady_clock::time_point> deadline);

/// Reaps a child by its pidfd once it has ended, for which it waits until the deadline. Returns as
/// `reap` does; EAGAIN: it still runs. `ret_status` may be null.
[[nodiscard]] int reap_by(std::chrono::steady_clock::time_point deadline, int pidfd,
                          int* ret_status);

}  // namespace warmfork
