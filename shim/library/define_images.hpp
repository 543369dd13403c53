// Defines the images of a template by what the C ABI says of it.
#pragma once

#include <cstdint>

#include "owner/failure.hpp"
#include "owner/images.hpp"
#include "warmfork.h"

namespace warmfork {

/// Fails with EINVAL where a value is out of range, and ENOENT where there is no such program, or
/// no Python package.
[[nodiscard]] Outcome define_images(const warmfork_template_options& options,
                                    ImageSet::Definition& ret_images);

/// Sets how many spares to keep. Fails with EINVAL where there cannot be so many.
[[nodiscard]] Outcome set_range(std::int32_t spares, std::uint32_t& ret_least,
                                std::uint32_t& ret_most);

}  // namespace warmfork
