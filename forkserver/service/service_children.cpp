// Children: each is this process's own; its status goes to the client that has it.
#include <fmt/format.h>
#include <signal.h>
#include <sys/epoll.h>
#include <sys/wait.h>

#include "keeper/end_processes.hpp"
#include "keeper/keeper.hpp"
#include "owner/companions.hpp"
#include "service/log.hpp"
#include "service/service.hpp"

namespace warmfork::service {
namespace {

// Between SIGTERM and SIGKILL: as an embedded template's children have it.
constexpr std::chrono::milliseconds kGracePeriodOfChildren{kGracePeriod};

}  // namespace

std::uint64_t Service::add_child(ServedChild child) {
    const std::uint64_t id = ++last_child_;
    if (const auto client = clients_.find(child.client); client != clients_.end())
        ++client->second.client.children;
    children_.emplace(id, std::move(child));
    watch_child(id);
    publish_soon();
    idle_.reset();
    return id;
}

void Service::watch_child(std::uint64_t id) {
    ServedChild& child = children_.at(id);
    child.ended =
        loop_.watch(child.pidfd.get(), EPOLLIN, [this, id](std::uint32_t) { on_child_ended(id); });
}

/// Tells the keeper, which ends the child with its client if this service is killed.
void Service::keep(const ServedChild& child, const Client& client) {
    if (!keeper_) return;
    if (int error = keep_for(keeper_.get(), child.pidfd.get(), client.peer().pidfd.get())) {
        log(LOG_WARNING, {child.template_name, client.peer().pid, child.pid},
            fmt::format("cannot tell the keeper of a child: {}", std::strerror(error)));
        if (error == EPIPE || error == ECONNRESET) renew_keeper();
    }
}

/// Starts a keeper and tells it of all that run.
void Service::renew_keeper() {
    const Descriptor self = open_pidfd(::getpid());
    const std::string program = find_companion("warmfork-keeper");
    keeper_.reset();
    const int error = program.empty() ? ENOENT
                      : !self         ? errno
                                      : start_keeper(program, self.get(), keeper_);
    if (error) {
        log(LOG_WARNING, {},
            fmt::format("cannot start warmfork-keeper ({}): children would be left behind if this "
                        "service were killed together with their clients",
                        std::strerror(error)));
        return;
    }
    for (const auto& [id, child] : children_)
        if (const auto client = clients_.find(child.client);
            client != clients_.end() && !child.is_detached)
            static_cast<void>(keep_for(keeper_.get(), child.pidfd.get(),
                                       client->second.client.peer().pidfd.get()));
}

void Service::on_child_ended(std::uint64_t id) {
    const auto found = children_.find(id);
    if (found == children_.end()) return;
    ServedChild& child = found->second;
    ExitReport report;
    const pid_t reaped = ::wait4(child.pid, &report.status, WNOHANG, &report.usage);
    if (reaped == 0) return;  // a thread that is not the first has ended by exec
    if (reaped < 0)
        log(LOG_ERR, {child.template_name, 0, child.pid},
            fmt::format("the status of a child is lost: {}", std::strerror(errno)));
    if (child.started) on_child_started(id);  // its last words come before its end
    const auto client = clients_.find(child.client);
    if (client != clients_.end()) {
        --client->second.client.children;
        if (reaped > 0) client->second.client.send(ServiceKind::exited, id, write_body(report));
        if (client->second.client.waits_for_room()) update_interest(client->second);
    }
    children_.erase(found);
    publish_soon();
    note_idleness();
    leave_when_empty();
}

/// What a client leaves behind when it goes.
void Service::end_children(std::uint64_t client, int signal) {
    bool has_some = false;
    for (const auto& [id, child] : children_) {
        if (child.client != client || child.is_detached) continue;
        signal_pidfd(child.pidfd.get(), signal);
        has_some = true;
    }
    if (!has_some || signal == SIGKILL) {
        killings_.erase(client);
        return;
    }
    killings_[client] =
        loop_.after(kGracePeriodOfChildren, [this, client] { end_children(client, SIGKILL); });
}

}  // namespace warmfork::service
