// Can a request be served warm at all? What depends on the request and on the template's
// definition.
#pragma once

#include <span>
#include <string>
#include <vector>

#include "protocol/record.hpp"
#include "warmfork.h"

namespace warmfork {

/// Why it must be cold; reason NONE: warm is fine.
struct ColdReason {
    warmfork_reason reason = WARMFORK_REASON_NONE;
    std::string text;
    explicit operator bool() const { return reason != WARMFORK_REASON_NONE; }
};

/// The template that a request meets.
struct TemplateTraits {
    bool is_python = false;
    std::string program;                       ///< full path of the interpreter or native program
    std::span<const std::string> environment;  ///< as the template was started with
    std::span<const int> image_descriptors;    ///< numbers that its children have in use
};

/// `program`: what the request runs, not yet looked up. `arguments` and `environment`: the child's.
[[nodiscard]] ColdReason find_cold_reason(const TemplateTraits& traits, const std::string& program,
                                          std::span<char* const> arguments,
                                          std::span<char* const> environment,
                                          std::span<const std::int32_t> descriptor_targets);

/// The file that execvp would run, as a full path; empty if there is none.
[[nodiscard]] std::string resolve_program(const std::string& program,
                                          std::span<char* const> environment);

}  // namespace warmfork
