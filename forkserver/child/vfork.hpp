// vfork with what it lacks: a pidfd of the child, its exit signal, and a stack of its own, so that
// the child disturbs no frame of its parent.
#pragma once

#include "channel/descriptor.hpp"

namespace warmfork {

/// Memory for the child's stack, which whoever may allocate has to make.
class ChildStack {
  public:
    ChildStack();
    ~ChildStack();
    ChildStack(const ChildStack&) = delete;
    ChildStack& operator=(const ChildStack&) = delete;

    /// Returns its upper end, or null where there was no memory for it: errno was set when it was
    /// made.
    void* top() const;

  private:
    void* memory_ = nullptr;
};

/// Runs `run(argument)` in a child that works on this process's memory, and ends with the status
/// that `run` returns. Comes back when the child has exec'd or ended; only the calling thread is
/// suspended meanwhile. The caller has blocked all signals: a handler must not run in the child.
/// `exit_signal` is SIGCHLD, or 0 for a child that no wait sees without __WALL and that ends
/// without a word to its parent (exec makes it SIGCHLD). Returns the pid or -errno. Where no number
/// is free for the pidfd it is left empty. May be called by such a child itself, with another
/// stack.
[[nodiscard]] int vfork_on(const ChildStack& stack, int (*run)(void*), void* argument,
                           int exit_signal, Descriptor& ret_pidfd);

}  // namespace warmfork
