#include "channel/open_file.hpp"

#include <fcntl.h>
#include <linux/kcmp.h>
#include <signal.h>
#include <sys/stat.h>
#include <sys/syscall.h>
#include <unistd.h>

#include <cerrno>

namespace warmfork {
namespace {

// Another thread, or another process that has the file as well, may mark it at the same time.
constexpr int kTries = 4;

/// Nothing: it cannot be told. One that is not open is no file's.
std::optional<bool> is_same_inode(int one, int other) {
    struct stat status, other_status;
    if (::fstat(one, &status) < 0 || ::fstat(other, &other_status) < 0)
        return errno == EBADF ? std::optional(false) : std::nullopt;
    return status.st_dev == other_status.st_dev && status.st_ino == other_status.st_ino;
}

std::optional<bool> is_same_by_mark(int one, int other) {
    const int flags = ::fcntl(other, F_GETFL);
    if (flags < 0 || (flags & O_ASYNC)) return {};  // its signal means something there
    const int before = ::fcntl(other, F_GETSIG);
    for (int tries = 0; tries < kTries; ++tries) {
        // Either is ignored where it is not handled.
        const int mark = ::fcntl(one, F_GETSIG) == SIGURG ? SIGWINCH : SIGURG;
        if (before < 0 || ::fcntl(other, F_SETSIG, mark) < 0) return {};
        const bool is_same = ::fcntl(one, F_GETSIG) == ::fcntl(other, F_GETSIG);
        if (::fcntl(other, F_SETSIG, before) < 0) return {};
        if (is_same) return true;
    }
    return false;
}

}  // namespace

std::optional<bool> is_same_open_file(int one, int other) {
    // The thread is asked, not the process: its main thread may have ended, and then has no
    // descriptors.
    const int self = ::gettid();
    const long difference = ::syscall(SYS_kcmp, self, self, KCMP_FILE, one, other);
    if (difference >= 0 || errno == EBADF) return difference == 0;
    const std::optional<bool> is_same = is_same_inode(one, other);
    return is_same.value_or(false) ? is_same_by_mark(one, other) : is_same;
}

}  // namespace warmfork
