// Where children live: each client's in cgroups of their own, as far as these are delegated.
#include <fmt/format.h>
#include <sys/epoll.h>

#include <cstring>
#include <fstream>

#include "channel/process_identity.hpp"
#include "keeper/end_processes.hpp"
#include "protocol/layout.hpp"
#include "service/log.hpp"
#include "service/service.hpp"

namespace warmfork::service {
namespace {

// The time between the end of a client and that of what its children have left behind.
constexpr std::chrono::milliseconds kGracePeriodOfCgroups{kGracePeriod};
// What was killed is gone after some time: it is looked for again after this.
constexpr std::chrono::milliseconds kRemovalPeriod{100};

bool is_parked(pid_t pid) {
    std::string name;
    return std::getline(std::ifstream(fmt::format("/proc/{}/comm", pid)), name) &&
           name == kSpareName;
}

bool is_limited(const CgroupLimits& limits) {
    return !(limits == CgroupLimits());
}

}  // namespace

void Service::adopt_cgroup() {
    if (!options_.has_delegated_cgroup) return;
    std::string error;
    static_cast<void>(Cgroups::adopt(cgroups_, error));
    if (!error.empty()) log(LOG_WARNING, {}, error);
}

/// Takes over cgroups that belong to none of the clients here: those of a service that was killed,
/// or of clients that went at the very end of the one before this.
void Service::take_over_cgroups() {
    for (const Cgroups::Owner& owner : cgroups_.owners()) {
        const auto client = clients_.find(owner.id);
        if (client != clients_.end() && client->second.client.peer().pid == owner.pid) continue;
        Descriptor pidfd = owner.pid > 0 ? open_pidfd(owner.pid) : Descriptor();
        if (!pidfd) {
            clear_cgroups(owner, false);
            continue;
        }
        Survivor& survivor = survivors_[owner];
        survivor.pidfd = std::move(pidfd);
        survivor.gone = loop_.watch(survivor.pidfd.get(), EPOLLIN, [this, owner](std::uint32_t) {
            clear_cgroups(owner, false);
            survivors_.erase(owner);
        });
    }
}

const CgroupLimits* Service::limits_of(const std::string& template_name) const {
    const auto found = configuration_.templates.find(template_name);
    if (!cgroups_ || found == configuration_.templates.end()) return nullptr;
    const CgroupLimits& limits = found->second.definition.cgroup;
    return is_limited(limits) ? &limits : nullptr;
}

Cgroups::Owner Service::cgroup_owner(const ServedChild& child) const {
    const auto client = clients_.find(child.client);
    if (child.is_detached || client == clients_.end()) return {};
    return {child.client, client->second.client.peer().pid};
}

/// Moves a child to where its client's live, while this process does something else. The child may
/// end meanwhile, and be waited for: its number is not given to another process so soon.
void Service::place(std::uint64_t id, std::function<void()> then) {
    if (!cgroups_) return then ? then() : void();
    struct Placing {
        int error = 0;
        std::string missing;
    };
    const ServedChild& child = children_.at(id);
    const CgroupLimits* const limits = limits_of(child.template_name);
    const auto placing = std::make_shared<Placing>();
    background_.add(
        [placing, cgroups = cgroups_, pid = child.pid, owner = cgroup_owner(child),
         name = child.template_name, limits = limits ? *limits : CgroupLimits()] {
            placing->error = cgroups.place(pid, owner, name, limits, placing->missing);
        },
        [placing, pid = child.pid, name = child.template_name, then = std::move(then)] {
            if (placing->error && placing->error != ESRCH)
                log(LOG_WARNING, {name, 0, pid, "cgroup"},
                    fmt::format("a child cannot be moved to its client's cgroup: {}",
                                std::strerror(placing->error)));
            if (!placing->missing.empty())
                log(LOG_WARNING, {name, 0, pid, "cgroup"},
                    fmt::format("a limit does not hold: {}", placing->missing));
            if (then) then();
        });
}

/// Clears cgroups until nothing is left. Whatever is in them has some time to end by itself, unless
/// `may_kill`.
void Service::clear_cgroups(const Cgroups::Owner& owner, bool may_kill) {
    if (!cgroups_) return;
    const bool is_detached = owner == Cgroups::Owner();
    const auto is_empty = std::make_shared<bool>();
    background_.add(
        [is_empty, owner, cgroups = cgroups_, kills = may_kill && !is_detached] {
            if (kills) cgroups.kill(owner);
            *is_empty = cgroups.remove(owner);
        },
        [this, is_empty, owner, may_kill, is_detached] {
            clearings_.erase(owner);
            // The next detached child that ends tries again.
            if (*is_empty || is_detached) return;
            clearings_[owner] = loop_.after(may_kill ? kRemovalPeriod : kGracePeriodOfCgroups,
                                            [this, owner] { clear_cgroups(owner, true); });
        });
}

/// Does it do something for its client, or have its client's record to begin with?
bool Service::is_at_work(const ServedChild& child) const {
    return child.is_used || !is_parked(child.pid);
}

/// What children of a client that goes have left running lives on, as it would behind a command
/// that was started without a service, if all of them had ended before. If one has not it cannot be
/// told what is whose. What others than this service's own user have started ends with them.
void Service::let_live_what_is_left(const Client& client, const Cgroups::Owner& owner) {
    if (!cgroups_ || !may_lease(client)) return;
    std::vector<pid_t> parked;
    for (const auto& [id, child] : children_) {
        if (child.client != client.id() || child.is_detached) continue;
        // The loop may hear of the client's end before that of a child which ended first.
        if (is_at_work(child) && !has_ended(child.pidfd.get())) return;
        parked.push_back(child.pid);
    }
    background_.add([owner, parked, cgroups = cgroups_] { cgroups.let_live(owner, parked); }, {});
    clear_cgroups({}, false);  // of those before it, which nobody has seen end
}

/// At the end, when all children have ended: what they have left behind.
void Service::kill_cgroups() {
    background_.finish();
    for (const Cgroups::Owner& owner : cgroups_.owners())
        if (!(owner == Cgroups::Owner())) cgroups_.kill(owner);
}

}  // namespace warmfork::service
