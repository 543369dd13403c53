// Which backend a request is for.
#pragma once

#include "warmfork.h"

namespace warmfork {

/// What WARMFORK_BACKEND says; auto where it says nothing.
[[nodiscard]] warmfork_backend default_backend();
/// The request's, else the template's, else the default.
[[nodiscard]] warmfork_backend choose_backend(warmfork_backend of_request,
                                              warmfork_backend of_template);

}  // namespace warmfork
