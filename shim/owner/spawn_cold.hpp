// Serves a request cold.
#pragma once

#include <cstdint>
#include <vector>

#include "owner/eligibility.hpp"
#include "owner/failure.hpp"
#include "owner/image_source.hpp"
#include "owner/request.hpp"

namespace warmfork {

/// Spawns all of them or none, without any template.
[[nodiscard]] Outcome spawn_without_template(const Request& request, std::uint32_t count,
                                             const ColdReason& reason,
                                             std::vector<Spawned>& ret_spawned);

}  // namespace warmfork
