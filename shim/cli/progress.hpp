// What a person sees of a template that is not ready yet.
#pragma once

#include <chrono>

#include "warmfork.hpp"

namespace warmfork::cli {

/// Blocks until it is ready, and on a terminal says meanwhile what is preloaded. Throws Error:
/// ETIMEDOUT where that takes longer than `patience`.
void wait_with_progress(Template& waited_for, std::chrono::milliseconds patience);

}  // namespace warmfork::cli
