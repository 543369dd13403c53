// Why a spawn failed, on its way through the shim.
#pragma once

#include <cerrno>
#include <cstring>
#include <optional>
#include <string>

#include "protocol/stage.hpp"

namespace warmfork {

struct Failure {
    Stage stage = Stage::none;
    int error_number = 0;
    int detail = 0;
    std::string text;
};

/// What came of a call: nothing on success.
using Outcome = std::optional<Failure>;

/// Did it fail for lack of descriptors, in this process or in flight? A cold child takes fewer of
/// them, and gets none over a socket, where the kernel counts those of all processes of the user.
inline bool is_lack_of_descriptors(const Failure& failure) {
    const int error = failure.error_number;
    return error == EMFILE || error == ENFILE || error == ETOOMANYREFS;
}

/// Makes a failure with the text "text: what errno means".
inline Failure make_failure(Stage stage, int error_number, const std::string& text,
                            int detail = 0) {
    return {stage, error_number, detail, text + ": " + std::strerror(error_number)};
}

/// Was what was waited for not there in time? It may be later.
[[nodiscard]] inline bool is_not_yet(const Outcome& failure) {
    return failure && failure->error_number == ETIMEDOUT;
}

}  // namespace warmfork
