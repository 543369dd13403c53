#include "service/notify.hpp"

#include <sys/socket.h>
#include <sys/time.h>
#include <sys/un.h>

#include <cstddef>
#include <cstdlib>
#include <cstring>

#include "channel/descriptor.hpp"
#include "service/log.hpp"

namespace warmfork::service {

bool notify_manager(std::string_view state, std::chrono::milliseconds patience) {
    const char* const variable = std::getenv("NOTIFY_SOCKET");
    const std::string_view place = variable ? variable : "";
    if (place.empty()) return true;
    sockaddr_un address{};
    if (place.size() >= sizeof address.sun_path) return false;
    address.sun_family = AF_UNIX;
    std::memcpy(address.sun_path, place.data(), place.size());
    if (place.front() == '@') address.sun_path[0] = '\0';  // an abstract one
    const Descriptor socket(::socket(AF_UNIX, SOCK_DGRAM | SOCK_CLOEXEC, 0));
    const timeval timeout{patience.count() / 1000, patience.count() % 1000 * 1000};
    if (!socket ||
        ::setsockopt(socket.get(), SOL_SOCKET, SO_SNDTIMEO, &timeout, sizeof timeout) < 0)
        return false;
    const int flags = MSG_NOSIGNAL | (patience.count() == 0 ? MSG_DONTWAIT : 0);
    const auto size = static_cast<socklen_t>(offsetof(sockaddr_un, sun_path) + place.size());
    return ::sendto(socket.get(), state.data(), state.size(), flags,
                    reinterpret_cast<const sockaddr*>(&address),
                    size) == static_cast<ssize_t>(state.size());
}

void say_ready() {
    if (!notify_manager("READY=1", kManagerPatience))
        log(LOG_ERR, {}, "the service is ready, and its manager was not told");
}

}  // namespace warmfork::service
