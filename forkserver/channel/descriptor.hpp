// Ownership of a file descriptor: move-only, closed on destruction.
#pragma once

#include <fcntl.h>
#include <sys/resource.h>
#include <sys/syscall.h>
#include <unistd.h>

#include <cerrno>
#include <cstdint>
#include <utility>

namespace warmfork {

class Descriptor {
  public:
    Descriptor() = default;
    explicit Descriptor(int number) : number_(number) {}
    Descriptor(Descriptor&& other) noexcept : number_(std::exchange(other.number_, -1)) {}
    Descriptor& operator=(Descriptor&& other) noexcept {
        if (this != &other) {
            reset();
            number_ = std::exchange(other.number_, -1);
        }
        return *this;
    }
    ~Descriptor() { reset(); }

    int get() const { return number_; }
    explicit operator bool() const { return number_ >= 0; }
    int release() { return std::exchange(number_, -1); }
    void reset() {
        if (number_ >= 0) ::close(std::exchange(number_, -1));
    }

  private:
    int number_ = -1;
};

/// May this process make a file of that size? One that tries all the same is ended by SIGXFSZ.
/// Sets errno to EFBIG where it may not.
inline bool may_make_file_of(std::uint64_t size) {
    rlimit limit{};
    const bool is_allowed = ::getrlimit(RLIMIT_FSIZE, &limit) < 0 || size <= limit.rlim_cur;
    if (!is_allowed) errno = EFBIG;
    return is_allowed;
}

/// Opens a pidfd (close-on-exec) of a process that has not been reaped. It is empty, with errno
/// set, on failure.
inline Descriptor open_pidfd(int pid) {
    return Descriptor(static_cast<int>(::syscall(SYS_pidfd_open, pid, 0)));
}

/// Sends a signal to the process behind a pidfd. Returns 0 or -1 with errno (ESRCH: it has ended).
inline int signal_pidfd(int pidfd, int signal) {
    return static_cast<int>(::syscall(SYS_pidfd_send_signal, pidfd, signal, nullptr, 0));
}

/// Moves a descriptor to a number of at least `lowest`, close-on-exec, so that it does not lie
/// where programs expect the lowest free number. Where no such number is free it stays where it is.
inline Descriptor moved_up(Descriptor descriptor, int lowest) {
    const int higher = ::fcntl(descriptor.get(), F_DUPFD_CLOEXEC, lowest);
    return higher < 0 ? std::move(descriptor) : Descriptor(higher);
}

}  // namespace warmfork
