// One token says who has a spare. The template or the parked child takes it away, so that a spare
// is never ended in the moment in which the owner takes it. It lies in an eventfd rather than in
// shared memory, which a child would have to unmap before user code, at the cost of several system
// calls.
#pragma once

#include <sys/eventfd.h>
#include <unistd.h>

#include <cstdint>

#include "channel/descriptor.hpp"

namespace warmfork {

/// Makes one with the token in it. It is empty, with errno set, on failure.
inline Descriptor make_parking_token() {
    return Descriptor(::eventfd(1, EFD_CLOEXEC | EFD_NONBLOCK));
}

/// Takes the token away. Returns false where the other side has taken it. The spare takes it when
/// its record has arrived, the template before it ends the spare.
inline bool take_parking_token(int eventfd) {
    std::uint64_t tokens;
    return ::read(eventfd, &tokens, sizeof tokens) == sizeof tokens;
}

}  // namespace warmfork
