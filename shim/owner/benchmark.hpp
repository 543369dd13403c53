// This is for the benchmark alone, and so not in warmfork.h.
#pragma once

#include "warmfork.h"

/// From now on spawns are served from the first image, whatever their environment, whether or not
/// its files have changed, and whatever lies beside the script. So it is measured what these looks
/// cost.
void warmfork_leave_unchecked(warmfork_template* self);
