#include "owner/service_address.hpp"

#include <unistd.h>

#include <cstdlib>

#include "protocol/variables.hpp"

namespace warmfork {

std::string service_address() {
    const char* chosen = std::getenv(kSocketVariable);
    if (chosen && *chosen) return chosen;
    const char* directory = std::getenv("XDG_RUNTIME_DIR");
    if (directory && *directory) return std::string(directory) + "/warmfork/socket";
    return ::geteuid() == 0 ? "/run/warmfork/socket" : "";
}

}  // namespace warmfork
