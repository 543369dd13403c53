// For the benchmark alone, and so not in warmfork.h.
#pragma once

#include "warmfork.h"

/// From now on spawns are served from the first image whatever their environment, whether its files
/// have changed, and whatever lies beside the script: to measure what looking costs.
void warmfork_leave_unchecked(warmfork_template* self);
