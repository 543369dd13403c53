// The names of the C interface's numbers, and where these repeat the contract: they are the same.
#include <string_view>

#include "protocol/board_layout.hpp"
#include "protocol/limits.hpp"
#include "protocol/stage.hpp"
#include "warmfork.h"

namespace {

using warmfork::Stage;

constexpr bool is_same(Stage stage, warmfork_stage exported) {
    return static_cast<std::uint32_t>(stage) == static_cast<std::uint32_t>(exported);
}

static_assert(is_same(Stage::none, WARMFORK_STAGE_NONE));
static_assert(is_same(Stage::record, WARMFORK_STAGE_RECORD));
static_assert(is_same(Stage::launch, WARMFORK_STAGE_LAUNCH));
static_assert(is_same(Stage::gate, WARMFORK_STAGE_GATE));
static_assert(is_same(Stage::fork, WARMFORK_STAGE_FORK));
static_assert(is_same(Stage::hand_off, WARMFORK_STAGE_HAND_OFF));
static_assert(is_same(Stage::descriptors, WARMFORK_STAGE_DESCRIPTORS));
static_assert(is_same(Stage::session, WARMFORK_STAGE_SESSION));
static_assert(is_same(Stage::signals, WARMFORK_STAGE_SIGNALS));
static_assert(is_same(Stage::limits, WARMFORK_STAGE_LIMITS));
static_assert(is_same(Stage::directory, WARMFORK_STAGE_DIRECTORY));
static_assert(is_same(Stage::title, WARMFORK_STAGE_TITLE));
static_assert(is_same(Stage::exec, WARMFORK_STAGE_EXEC));
static_assert(is_same(Stage::eligibility, WARMFORK_STAGE_ELIGIBILITY));
static_assert(is_same(Stage::stale, WARMFORK_STAGE_STALE));
// A new stage is one of both: the next number has no name.
static_assert(stage_name(Stage{WARMFORK_STAGE_STALE + 1}) == std::string_view("unknown"));

static_assert(WARMFORK_REASON_COUNT <= warmfork::kBoardReasons);
static_assert(sizeof(warmfork_failure::text) == warmfork::kMaximumTextSize);

}  // namespace

extern "C" {

const char* warmfork_backend_name(enum warmfork_backend backend) {
    switch (backend) {
        case WARMFORK_BACKEND_DEFAULT:
            return "default";
        case WARMFORK_BACKEND_AUTO:
            return "auto";
        case WARMFORK_BACKEND_WARM:
            return "warm";
        case WARMFORK_BACKEND_COLD:
            return "cold";
    }
    return "unknown";
}

const char* warmfork_reason_name(enum warmfork_reason reason) {
    switch (reason) {
        case WARMFORK_REASON_NONE:
            return "none";
        case WARMFORK_REASON_ASKED:
            return "asked";
        case WARMFORK_REASON_NO_TEMPLATE:
            return "no-template";
        case WARMFORK_REASON_PROGRAM:
            return "program";
        case WARMFORK_REASON_COMMAND_LINE:
            return "command-line";
        case WARMFORK_REASON_ENVIRONMENT:
            return "environment";
        case WARMFORK_REASON_LIMITS:
            return "limits";
        case WARMFORK_REASON_DESCRIPTORS:
            return "descriptors";
        case WARMFORK_REASON_OWNER_CHANGED:
            return "owner-changed";
        case WARMFORK_REASON_RESTARTING:
            return "restarting";
        case WARMFORK_REASON_GATE:
            return "gate";
        case WARMFORK_REASON_FORK:
            return "fork";
        case WARMFORK_REASON_STALE:
            return "stale";
        case WARMFORK_REASON_SHADOWED:
            return "shadowed";
        case WARMFORK_REASON_UNRESPONSIVE:
            return "unresponsive";
        case WARMFORK_REASON_COUNT:
            break;
    }
    return "unknown";
}

const char* warmfork_stage_name(enum warmfork_stage stage) {
    return warmfork::stage_name(static_cast<Stage>(stage));
}

}  // extern "C"
