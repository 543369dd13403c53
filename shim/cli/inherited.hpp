// What a command gets from its caller by being executed, and a child that is spawned for it would
// lack.
#pragma once

#include <string>
#include <vector>

#include "warmfork.h"

namespace warmfork::cli {

/// The descriptors beyond 2 that this process was started with. They are not close-on-exec, while
/// all of its own are. They stay open until they are left to a child.
class InheritedDescriptors {
  public:
    /// Must be made before anything else opens descriptors. Throws Error where /proc does not tell.
    InheritedDescriptors();

    /// Returns them as a request wants them, each under its own number.
    const std::vector<warmfork_descriptor>& pairs() const { return pairs_; }

    /// Is one of them a terminal? What is read from it, or shown on it, goes past the relay between
    /// the person's terminal and the child's.
    [[nodiscard]] bool has_terminal() const;

    /// Closes them here, and puts /dev/null on standard input and output, so that whoever waits for
    /// the end of a pipe, or for a lock, waits for the child alone.
    void leave_to_child();

  private:
    std::vector<warmfork_descriptor> pairs_;
};

/// Returns the variable of the environment that means this very process by its pid, and so the
/// program that it executes; empty where there is none.
std::string variable_with_own_pid();

}  // namespace warmfork::cli
