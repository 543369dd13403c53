#include "link/service_place.hpp"

#include <unistd.h>

#include <cstdio>
#include <cstdlib>

namespace warmfork::link {

bool find_service_socket(char (&ret_path)[kSocketPathSize]) {
    const char* const chosen = std::getenv("WARMFORK_SOCKET");
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

}  // namespace warmfork::link
