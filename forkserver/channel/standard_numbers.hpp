// The numbers of the standard streams, where this process was started without some of them.
#pragma once

#include <fcntl.h>
#include <unistd.h>

namespace warmfork {

/// Puts /dev/null on those that are closed. Otherwise what this process opens for itself gets such
/// a number, and takes what is written, or put in place, for a stream. It is close-on-exec: what is
/// executed or spawned finds them closed, as it would have. It must be called before anything is
/// opened.
inline void hold_standard_numbers() {
    // Each is the lowest free number in its turn.
    for (int number : {STDIN_FILENO, STDOUT_FILENO, STDERR_FILENO})
        if (::fcntl(number, F_GETFD) < 0) ::open("/dev/null", O_RDWR | O_CLOEXEC);
}

}  // namespace warmfork
