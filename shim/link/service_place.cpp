#include "link/service_place.hpp"

#include <unistd.h>

#include <cstdio>
#include <cstdlib>

#include "protocol/variables.hpp"

namespace warmfork::link {

bool find_service_socket(char (&ret_path)[kSocketPathSize]) {
    const char* const chosen = std::getenv(kSocketVariable);
    const char* const directory = std::getenv("XDG_RUNTIME_DIR");
    int size = 0;
    if (chosen && *chosen)
        size = std::snprintf(ret_path, sizeof ret_path, "%s", chosen);
    else if (directory && *directory)
        size = std::snprintf(ret_path, sizeof ret_path, "%s/warmfork/socket", directory);
    else if (::geteuid() == 0)
        size = std::snprintf(ret_path, sizeof ret_path, "/run/warmfork/socket");
    return size > 0 && static_cast<std::size_t>(size) < sizeof ret_path;
}

bool is_trusted(const ucred& service) {
    return service.uid == ::geteuid() || service.uid == 0 || std::getenv(kSocketVariable);
}

}  // namespace warmfork::link
