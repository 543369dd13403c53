// The board in the text format of Prometheus, version 0.0.4.
#pragma once

#include <string>

#include "service/board_reader.hpp"

namespace warmfork::cli {

std::string metrics_of(const BoardSnapshot& snapshot);

/// Says in the same format that no daemon runs.
std::string metrics_of_nothing();

}  // namespace warmfork::cli
