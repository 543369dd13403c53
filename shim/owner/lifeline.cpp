#include "owner/lifeline.hpp"

#include <fcntl.h>
#include <signal.h>

#include <cerrno>

namespace warmfork {

int Lifeline::open() {
    OwnedSocket one, other;
    if (int error = make_owned_pair(one, other)) return error;
    // Each is told of the other's end, as it is not known which one the kernel closes first.
    for (const OwnedSocket* end : {&one, &other})
        if (::fcntl(end->get(), F_SETSIG, SIGKILL) < 0 || ::fcntl(end->get(), F_SETFL, O_ASYNC) < 0)
            return errno;
    ends_ = {std::move(one), std::move(other)};
    return 0;
}

int Lifeline::tie(pid_t pid) const {
    for (const OwnedSocket& end : ends_)
        if (::fcntl(end.get(), F_SETOWN, pid) < 0) return errno;
    return 0;
}

void Lifeline::release() {
    for (const OwnedSocket& end : ends_)
        if (end.is_intact()) ::fcntl(end.get(), F_SETFL, 0);
    for (OwnedSocket& end : ends_) end.reset();
}

}  // namespace warmfork
