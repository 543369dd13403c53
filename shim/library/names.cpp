// The names of the C interface's numbers, and where these repeat the contract: they are the same.
#include <iterator>
#include <string_view>
#include <utility>

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
// A new stage must be added to both: so far the next number has no name.
static_assert(stage_name(Stage{WARMFORK_STAGE_STALE + 1}) == std::string_view("unknown"));

// By number, each with the name that documents, boards and Python know it by.
constexpr std::pair<warmfork_reason, const char*> kReasonNames[] = {
    {WARMFORK_REASON_NONE, "none"},
    {WARMFORK_REASON_ASKED, "asked"},
    {WARMFORK_REASON_NO_TEMPLATE, "no-template"},
    {WARMFORK_REASON_PROGRAM, "program"},
    {WARMFORK_REASON_COMMAND_LINE, "command-line"},
    {WARMFORK_REASON_ENVIRONMENT, "environment"},
    {WARMFORK_REASON_LIMITS, "limits"},
    {WARMFORK_REASON_DESCRIPTORS, "descriptors"},
    {WARMFORK_REASON_OWNER_CHANGED, "owner-changed"},
    {WARMFORK_REASON_RESTARTING, "restarting"},
    {WARMFORK_REASON_GATE, "gate"},
    {WARMFORK_REASON_FORK, "fork"},
    {WARMFORK_REASON_STALE, "stale"},
    {WARMFORK_REASON_SHADOWED, "shadowed"},
    {WARMFORK_REASON_UNRESPONSIVE, "unresponsive"},
};
static_assert(std::size(kReasonNames) == WARMFORK_REASON_COUNT);
static_assert([] {
    for (int number = 0; number < WARMFORK_REASON_COUNT; ++number)
        if (kReasonNames[number].first != number) return false;
    return true;
}());

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
    return reason >= 0 && reason < WARMFORK_REASON_COUNT ? kReasonNames[reason].second : "unknown";
}

const char* warmfork_stage_name(enum warmfork_stage stage) {
    return warmfork::stage_name(static_cast<Stage>(stage));
}

}  // extern "C"
