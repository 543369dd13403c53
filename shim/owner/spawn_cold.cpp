#include "owner/spawn_cold.hpp"

#include <unistd.h>

#include <utility>

#include "child/setup.hpp"
#include "owner/cold.hpp"
#include "owner/keeping.hpp"
#include "protocol/record.hpp"

namespace warmfork {

Outcome spawn_without_template(const Request& request, std::uint32_t count,
                               const ColdReason& reason, std::vector<Spawned>& ret_spawned) {
    if (request.has_terminal())
        return Failure{Stage::eligibility, ENOTSUP, 0,
                       "a cold child has no terminal of its own (WARMFORK_TERMINAL): give it its "
                       "owner's"};
    RecordContents contents = request.contents();
    contents.header.owner_pid = ::getpid();
    if (::gettid() == ::getpid()) contents.header.flags |= kRecordParentDeathSignal;
    if (contents.header.signals_ignored) contents.header.flags |= kRecordSignalsIgnored;
    RecordView values;
    if (int error = view_values(contents, values))
        return make_failure(Stage::record, error, "the request has a value that is out of range");
    std::vector<Spawned> spawned;
    Outcome failure;
    for (std::uint32_t i = 0; i < count && !failure; ++i) {
        ColdPlan plan;
        plan.record = values;
        plan.arguments = contents.arguments;
        plan.environment = contents.environment;
        plan.sources = request.sources();
        plan.candidates = executable_candidates(request.program(), request.environment());
        plan.signals_default = request.signals_default();
        plan.signal_mask =
            request.has_signal_mask() ? request.contents().header.signal_mask : signal_mask();
        ColdProcess child;
        failure = spawn_with_keeper(plan, child);
        if (!failure)
            spawned.push_back({child.identity.pid, false, reason, {}, child.identity.mark});
    }
    if (failure) {
        for (const Spawned& child : spawned) end_child(child.identity());
        return failure;
    }
    ret_spawned = std::move(spawned);
    return {};
}

}  // namespace warmfork
