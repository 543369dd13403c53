// What `warmfork doctor` shows of a template.
#pragma once

#include <span>
#include <string>
#include <vector>

#include "template/freshness.hpp"
#include "template/host.hpp"

namespace warmfork {

struct SpareFact {
    int pid;
    bool has_parked;
    double seconds;  ///< since its birth
};

/// Returns a JSON object with threads, descriptors (all but warmfork's `own`, sorted), mappings,
/// resident memory, the last fork's time, what is watched for changes, what was found and allowed,
/// what depends on the `directory`, and under "host" the host's own JSON. It is at most a frame's
/// payload.
[[nodiscard]] std::string make_report(std::span<const int> own, double fork_microseconds,
                                      const Freshness& freshness, std::span<const SpareFact> spares,
                                      const std::vector<std::string>& directory, Host& host);

}  // namespace warmfork
