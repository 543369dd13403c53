// Which backend a request is for.
#pragma once

#include "warmfork.h"

namespace warmfork {

/// Returns what WARMFORK_BACKEND says, or auto where it says nothing.
[[nodiscard]] warmfork_backend default_backend();
/// Returns the request's backend, else the template's, else the default.
[[nodiscard]] warmfork_backend choose_backend(warmfork_backend of_request,
                                              warmfork_backend of_template);

}  // namespace warmfork
