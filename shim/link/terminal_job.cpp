#include "link/terminal_job.hpp"

#include <sys/stat.h>
#include <unistd.h>

#include <initializer_list>

namespace warmfork::link {

bool is_whole_job_at_terminal() {
    if (::getpgrp() != ::getpid() || ::tcgetpgrp(STDIN_FILENO) < 0) return false;
    struct stat input, other;
    if (::fstat(STDIN_FILENO, &input) < 0) return false;
    for (const int number : {STDOUT_FILENO, STDERR_FILENO})
        if (::isatty(number) != 1 || ::fstat(number, &other) < 0 || other.st_rdev != input.st_rdev)
            return false;
    return true;
}

}  // namespace warmfork::link
