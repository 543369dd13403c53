// Can a request be served from an image? This finds what it wants of one, and what about a certain
// one is in its way.
#pragma once

#include <sys/types.h>

#include <string>
#include <vector>

#include "owner/eligibility.hpp"
#include "owner/images.hpp"
#include "owner/python_command.hpp"
#include "owner/request.hpp"
#include "owner/shadowing.hpp"

namespace warmfork {

/// Finds what the request wants of an image, or why none will do.
[[nodiscard]] ColdReason find_selection(const Request& request, bool is_python,
                                        const std::string& program, PythonCommand& ret_command,
                                        Selection& ret_selection);

/// What of an image decides whether a request can come from it.
struct ImageTraits {
    pid_t pid;
    std::vector<int> descriptors;   ///< opened by preloading
    const ModuleFiles& shadowable;  ///< and what depends on the directory: see ImageFacts
    const std::string& directory;   ///< that it was started in
};

/// Finds why a Python request cannot be served from an image that fits it otherwise.
[[nodiscard]] ColdReason find_image_reason(const Request& request, const PythonCommand& command,
                                           const ImageTraits& image, ShadowSearch& shadows);
/// Asks the same for every kind of image.
[[nodiscard]] ColdReason find_common_reason(const Request& request, const ImageTraits& image);

}  // namespace warmfork
