#include "cli/child_cost.hpp"

#include <sys/resource.h>
#include <sys/time.h>

#include <algorithm>
#include <cstddef>

#include "cli/commands.hpp"

namespace warmfork::cli {
namespace {

constexpr std::size_t kChildrenOfEachKind = 7;

double seconds(const timeval& time) {
    return static_cast<double>(time.tv_sec) + static_cast<double>(time.tv_usec) * 1e-6;
}

ChildCost measure_child(Template& of, const std::vector<std::string>& command,
                        warmfork_backend backend) {
    const auto arguments = detail::pointers(command);
    warmfork_request request;
    warmfork_request_init(&request);
    request.arguments = arguments.data();
    request.backend = backend;
    Process child = of.spawn(request);
    rusage usage{};
    if (const int status = child.wait(&usage); status != 0)
        throw own_error(WARMFORK_STAGE_EXEC, 0,
                        "a child that does nothing ended with status " + std::to_string(status));
    return {seconds(usage.ru_utime) + seconds(usage.ru_stime), usage.ru_minflt + usage.ru_majflt};
}

/// Returns the median of each number by itself.
ChildCost median(std::vector<ChildCost> costs) {
    const auto middle = costs.begin() + static_cast<std::ptrdiff_t>(costs.size() / 2);
    const auto take = [&](auto member) {
        std::nth_element(costs.begin(), middle, costs.end(),
                         [member](const ChildCost& one, const ChildCost& other) {
                             return one.*member < other.*member;
                         });
        return (*middle).*member;
    };
    const double processor = take(&ChildCost::seconds);
    return {processor, take(&ChildCost::page_faults)};
}

}  // namespace

ChildCosts measure_children(Template& of, const std::vector<std::string>& interpreter) {
    std::vector<std::string> command = interpreter;
    command.insert(command.end(), {"-c", "pass"});
    std::vector<ChildCost> warm, cold;
    // They take turns, so that both find the machine alike.
    for (std::size_t i = 0; i < kChildrenOfEachKind; ++i) {
        warm.push_back(measure_child(of, command, WARMFORK_BACKEND_WARM));
        cold.push_back(measure_child(of, command, WARMFORK_BACKEND_COLD));
    }
    return {median(std::move(warm)), median(std::move(cold))};
}

}  // namespace warmfork::cli
