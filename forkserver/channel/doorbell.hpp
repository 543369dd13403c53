// An eventfd that wakes the other end. Only embedded channels have it: owner and template trust
// each other not to clear O_NONBLOCK, which belongs to the open file that both share.
#pragma once

#include <sys/eventfd.h>

#include <cstdint>

#include "channel/descriptor.hpp"

namespace warmfork {

/// Makes a doorbell, close-on-exec. It is empty, with errno set, on failure.
inline Descriptor make_doorbell() {
    return Descriptor(::eventfd(0, EFD_CLOEXEC | EFD_NONBLOCK));
}

/// Wakes whoever polls the doorbell. A full counter (EAGAIN) means that it is ringing already.
inline void ring(int doorbell) {
    const std::uint64_t one = 1;
    [[maybe_unused]] const auto written = ::write(doorbell, &one, sizeof one);
}

/// Takes the ring back, so that poll sleeps again.
inline void silence(int doorbell) {
    std::uint64_t count;
    [[maybe_unused]] const auto got = ::read(doorbell, &count, sizeof count);
}

}  // namespace warmfork
