// How the owner's side waits: every wait has an end, and the thread that waits may break it off.
#pragma once

#include <poll.h>

#include <chrono>
#include <functional>
#include <optional>
#include <span>

namespace warmfork {

using WaitClock = std::chrono::steady_clock;
using Deadline = std::optional<WaitClock::time_point>;  ///< nothing: for ever

/// How long a child may be on its way to user code, after which it is given up: the template does
/// not answer, or a fork handler does not return.
inline constexpr std::chrono::seconds kStartPatience{5};
/// How long a process that was killed may take to end, which nothing but the kernel can delay.
inline constexpr std::chrono::seconds kKillPatience{10};

/// While it lives the waits of this thread ask now and then whether they are to be broken off. An
/// interpreter needs it, whose handlers of signals have to run meanwhile, and may raise. They ask
/// with no lock held. Once the answer was yes every further wait of the thread ends at once. Only
/// the waits for the end of what was killed do not ask: they are short but for the kernel, and
/// whoever broke them off would leave a child that nobody reaps.
class Interruption {
  public:
    explicit Interruption(std::function<bool()> ask);
    ~Interruption();
    Interruption(const Interruption&) = delete;
    Interruption& operator=(const Interruption&) = delete;

  private:
    friend bool may_be_interrupted();
    friend bool check_interruption();
    friend bool was_interrupted();

    std::function<bool()> ask_;
    bool has_happened_ = false;
    Interruption* outer_;  ///< of a call further out, which a handler has called back from
};

/// Is there somebody to be asked on this thread?
[[nodiscard]] bool may_be_interrupted();
/// Asks whether to break off, until that was answered once. No lock may be held.
[[nodiscard]] bool check_interruption();
/// Returns what was answered so far, without asking.
[[nodiscard]] bool was_interrupted();

/// Returns until when to sleep at most before asking again.
[[nodiscard]] Deadline next_look(Deadline deadline);

/// Calls poll(2). Returns how many are ready, or 0 where the deadline has passed, or the wait was
/// interrupted. No lock may be held.
[[nodiscard]] int poll_until(std::span<pollfd> polled, Deadline deadline);

}  // namespace warmfork
