// What ends a template that cannot see that its owner has ended, as it still preloads.
#pragma once

#include <array>

#include "owner/owned_sockets.hpp"

namespace warmfork {

/// A connected pair of sockets, both of this process. The end of either raises SIGKILL for the
/// process that is tied to it, however it comes: this process ends, executes another program, or
/// has its descriptors closed. What is tied need not have any of it open, and can neither block nor
/// forget it: what it closes of it this process still has. No copy that fork(2) makes of this
/// process holds on to it; one that was made past libc, by clone(2), does as long as it lives.
class Lifeline {
  public:
    /// Makes the pair. Returns 0 or errno.
    [[nodiscard]] int open();
    /// Ties a process of this user to it, and nobody else from now on. Returns 0 or errno. Whether
    /// the pid was still that process's own the caller has to look afterwards. It is safe between
    /// vfork and exec.
    [[nodiscard]] int tie(pid_t pid) const;
    /// Returns the end that the process is sent as well. By taking O_ASYNC from that it lets itself
    /// live on, as long as it then has it open.
    int shared_end() const { return ends_[0].get(); }
    /// Lets the process live on, and ends the lifeline, which would kill it without this.
    void release();

  private:
    std::array<OwnedSocket, 2> ends_;
};

}  // namespace warmfork
