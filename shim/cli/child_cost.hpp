// What children that do nothing cost, with a template and without one. That is what a program pays
// that uses nothing of what was preloaded.
#pragma once

#include <string>
#include <vector>

#include "warmfork.hpp"

namespace warmfork::cli {

struct ChildCost {
    double seconds;  ///< of the processors
    long page_faults;
};

struct ChildCosts {
    ChildCost warm, cold;  ///< medians; warm: with its preparation before it was parked
};

/// Spawns some children of each kind, one after the other, and waits for them. `interpreter` is the
/// file and its options. Throws Error, also where the children cannot be warm.
[[nodiscard]] ChildCosts measure_children(Template& of,
                                          const std::vector<std::string>& interpreter);

}  // namespace warmfork::cli
