#include "owner/backend.hpp"

#include <cstdlib>
#include <cstring>
#include <initializer_list>

#include "protocol/variables.hpp"

namespace warmfork {

warmfork_backend choose_backend(warmfork_backend of_request, warmfork_backend of_template) {
    if (of_request != WARMFORK_BACKEND_DEFAULT) return of_request;
    return of_template != WARMFORK_BACKEND_DEFAULT ? of_template : default_backend();
}

warmfork_backend default_backend() {
    const char* chosen = std::getenv(kBackendVariable);
    for (warmfork_backend backend :
         {WARMFORK_BACKEND_AUTO, WARMFORK_BACKEND_WARM, WARMFORK_BACKEND_COLD})
        if (chosen && std::strcmp(chosen, warmfork_backend_name(backend)) == 0) return backend;
    return WARMFORK_BACKEND_AUTO;
}

}  // namespace warmfork
