// Layers: templates that begin as a parked child of another one, their base.
#include <fmt/format.h>

#include <algorithm>
#include <cstring>

#include "owner/cold.hpp"
#include "service/service.hpp"

namespace warmfork::service {
namespace {

/// Puts a refusal into the words of a layer.
Failure failure_of(const Refusal& refusal, const std::string& base) {
    const auto error = static_cast<int>(refusal.error_number);
    return {static_cast<Stage>(refusal.stage), error == 0 || error == ETIMEDOUT ? EAGAIN : error, 0,
            fmt::format("the template {}, which this one extends, has no child for it: {}", base,
                        refusal.text)};
}

}  // namespace

/// Asks the base as a client does that waits for an image that fits and is up to date.
Outcome Service::take_foundation(const std::string& layer, const Selection& selection,
                                 ImageSet::Foundation& ret_foundation, ColdReason& ret_cold) {
    ServedTemplate& served = templates_.at(layer);
    const std::string& base_name = served.named.definition().base;
    const auto same = [&](const FoundationAsk& ask) {
        return ask.options == selection.options &&
               is_same_environment(ask.environment, selection.environment);
    };
    const auto known = std::ranges::find_if(served.foundation_asks, same);
    if (known != served.foundation_asks.end()) {
        if (!known->is_answered)
            return make_failure(Stage::launch, ETIMEDOUT, "the base is not ready yet");
        FoundationAsk ask = std::move(*known);
        served.foundation_asks.erase(known);
        ret_foundation = std::move(ask.foundation);
        if (ret_foundation.base) return {};
        const Failure failure = failure_of(ask.refusal, base_name);
        if (ask.refusal.reason != WARMFORK_REASON_NONE)
            ret_cold = {static_cast<warmfork_reason>(ask.refusal.reason), failure.text};
        return failure;
    }
    ServedTemplate* base = find_template(base_name);
    if (!base)
        return Failure{Stage::launch, ENOENT, 0,
                       "this template extends another: " + explain_absence(base_name)};
    FoundationAsk ask{++last_foundation_, selection.options, {}};
    ask.environment.assign(selection.environment.begin(), selection.environment.end());
    NamedTemplate::Ask wanted{NamedTemplate::kNoClient, ask.id, {}};
    wanted.wanted.name = base_name;
    wanted.wanted.flags = kLeaseMayWait | (selection.is_isolated ? kLeaseIsolated : 0);
    wanted.wanted.options = ask.options;
    wanted.wanted.environment = ask.environment;
    base->named.add(std::move(wanted));
    attend_soon(base_name);
    served.foundation_asks.push_back(std::move(ask));
    return make_failure(Stage::launch, ETIMEDOUT, "the base is asked for a child");
}

/// Gives what the base says to the layer that has asked. A child that nobody waits for any more
/// ends.
void Service::lay_foundation(NamedTemplate::Answer& answer) {
    const std::uint64_t id = answer.ask->request;
    const auto find_in = [id](ServedTemplate& served) {
        return std::ranges::find(served.foundation_asks, id, &FoundationAsk::id);
    };
    for (auto& [name, layer] : templates_) {
        const auto ask = find_in(layer);
        if (ask == layer.foundation_asks.end()) continue;
        ask->is_answered = true;
        ask->refusal = std::move(answer.refusal);
        if (answer.spare) ask->foundation = {answer.process, std::move(*answer.spare)};
        attend(name);
        const auto left = find_in(layer);
        if (left == layer.foundation_asks.end()) return;
        if (left->foundation.base) end_child(left->foundation.spare.identity());
        layer.foundation_asks.erase(left);
        return;
    }
    if (answer.spare) end_child(answer.spare->identity());
}

/// Returns the layers that are in use, and extend it directly or through others.
std::vector<std::string> Service::layers_on(const std::string& base) const {
    std::vector<std::string> found{base};
    // Each is found once: those that are still as an older configuration had them may go round in a
    // circle.
    for (std::size_t i = 0; i < found.size(); ++i)
        for (const auto& [name, served] : templates_)
            if (served.named.definition().base == found[i] &&
                std::ranges::find(found, name) == found.end())
                found.push_back(name);
    found.erase(found.begin());
    return found;
}

/// Begins a template anew, as the configuration is now, and with it what extends it. Returns null
/// where there is no such template any more.
Service::ServedTemplate* Service::renew_template(const std::string& name) {
    std::vector<std::string> names = layers_on(name);
    names.insert(names.begin(), name);
    std::map<std::string, std::list<NamedTemplate::Ask>> asks;
    for (const std::string& renewed : names) {
        asks[renewed] = templates_.at(renewed).named.take_asks();
        templates_.erase(renewed);
    }
    for (const std::string& renewed : names) {
        ServedTemplate* const served = find_template(renewed);
        for (NamedTemplate::Ask& ask : asks[renewed]) {
            // This one is from a layer that has begun anew, and asks again.
            if (ask.client == NamedTemplate::kNoClient) continue;
            if (served) {
                served->named.add(std::move(ask));
            } else if (const auto client = clients_.find(ask.client); client != clients_.end()) {
                count_answered(client->second.client, ask.wanted.count, ask.size);
                refuse(client->second.client, ask.request, Stage::launch, ENOENT,
                       explain_absence(renewed));
                update_interest(client->second);
            }
        }
        if (!served) continue;
        // The asks are answered, whatever becomes of this.
        attend_soon(renewed);
        if (renewed != name) static_cast<void>(served->named.start());
    }
    const auto found = templates_.find(name);
    return found == templates_.end() ? nullptr : &found->second;
}

}  // namespace warmfork::service
