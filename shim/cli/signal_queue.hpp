// The signals that `warmfork run` passes on to its child.
#pragma once

#include <signal.h>
#include <sys/signalfd.h>

#include <cstdint>
#include <optional>

#include "warmfork.hpp"

namespace warmfork::cli {

/// A signal that has arrived.
struct ArrivedSignal {
    int number;
    bool is_from_terminal;  ///< to the whole process group
};

/// Signals as events: blocked from here on, and passed on to a child, all that would end this
/// process and can be caught. What the caller ignores (nohup) stays ignored, here and in the child.
class SignalQueue {
  public:
    /// With `for_terminal`, what a terminal sends to this process group is passed on too, and
    /// Ctrl-Z stops both: it does not reach a child of the service, which is in a session of its
    /// own.
    explicit SignalQueue(bool for_terminal);
    SignalQueue(const SignalQueue&) = delete;
    SignalQueue& operator=(const SignalQueue&) = delete;
    ~SignalQueue();

    /// Says that the child is in this process group after all: it has got what has come meanwhile,
    /// too.
    void leave_terminal_to_child();

    /// Whoever shows a terminal has to take it up again at SIGCONT, and may not end before he has
    /// left it as it was, by SIGPIPE for example: these are events as well.
    void stay_for_terminal();

    /// Makes signals as they were; what has come meanwhile takes effect.
    void give_back() { ::sigprocmask(SIG_SETMASK, &before_, nullptr); }

    /// Has one come that ends a program which does nothing about it?
    bool has_ending() const;

    int descriptor() const { return descriptor_; }
    std::uint64_t mask_before() const;

    /// Returns the next one, or nothing where there is none.
    std::optional<ArrivedSignal> next();

    /// Passes on what has arrived. What the terminal sent (Ctrl-C) has reached a child
    /// in this process group already.
    void forward_to(Process& child);

  private:
    void add(int signal);

    sigset_t set_, before_;
    int descriptor_;
    bool stands_for_terminal_;
};

/// Sends a signal to the child. One that has ended gets none: its status is about to be fetched.
void signal_process(Process& child, int signal);

/// Signals the child as a terminal does, and so its own children too, where the kernel can say
/// whose they are.
void signal_group(Process& child, int signal);

/// Stops this process as SIGTSTP does by default, which is not at all where no shell could continue
/// it. Returns when it is continued.
void stop_self();

}  // namespace warmfork::cli
