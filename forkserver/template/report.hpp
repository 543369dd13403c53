// What `warmfork doctor` shows of a template.
#pragma once

#include <string>
#include <unordered_set>

#include "template/freshness.hpp"

namespace warmfork {

/// A JSON object: threads, descriptors (all but warmfork's `own`), mappings, resident memory,
/// the last fork's time, what is watched for changes, and under "host" the host's own JSON. At most
/// a frame's payload.
[[nodiscard]] std::string make_report(const std::unordered_set<int>& own, double fork_microseconds,
                                      const Freshness& freshness, const std::string& host);

}  // namespace warmfork
