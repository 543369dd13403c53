// Children: each is this process's own; its status goes to the client that has it.
#include <fmt/format.h>
#include <signal.h>
#include <sys/epoll.h>
#include <sys/wait.h>

#include "channel/stopping_point.hpp"
#include "keeper/end_processes.hpp"
#include "keeper/keeper.hpp"
#include "owner/companions.hpp"
#include "service/log.hpp"
#include "service/service.hpp"

namespace warmfork::service {
namespace {

// The time between SIGTERM and SIGKILL, which an embedded template's children have as well.
constexpr std::chrono::milliseconds kGracePeriodOfChildren{kGracePeriod};
// After this time a keeper that was full is told the rest.
constexpr std::chrono::milliseconds kKeeperPatience{1};
// After this time another keeper is started where one has gone, or could not be started.
constexpr std::chrono::milliseconds kKeeperRetryPeriod{20};

}  // namespace

std::uint64_t Service::add_child(ServedChild child) {
    const std::uint64_t id = ++last_child_;
    count_child(child, 1);
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

/// Tells the keeper of a child, which it ends with its client if this service is killed.
void Service::give_to_keeper(std::uint64_t id) {
    untold_.push_back(id);
    tell_keeper();
}

void Service::tell_keeper() {
    keeper_room_.reset();
    for (; !untold_.empty() && keeper_; untold_.pop_front()) {
        const auto child = children_.find(untold_.front());
        if (child == children_.end() || child->second.is_detached) continue;
        const auto client = clients_.find(child->second.client);
        if (client == clients_.end()) continue;  // it is being ended
        const int pidfd = child->second.pidfd.get();
        const int owner = client->second.client.peer().pidfd.get();
        const int error = send_for(keeper_.get(), pidfd, owner);
        if (error == EPIPE || error == ECONNRESET) return lose_keeper();  // all are told again
        if (error == EAGAIN || error == ETOOMANYREFS) {
            // The keeper has yet to take those before.
            keeper_room_ = loop_.after(kKeeperPatience, [this] { tell_keeper(); });
            return;
        }
        if (error)
            log(LOG_WARNING, {child->second.template_name, 0, child->second.pid},
                fmt::format("cannot tell the keeper of a child: {}", std::strerror(error)));
    }
}

/// Notes that the keeper has been killed, or could not be started. Another one is started in a
/// while.
void Service::lose_keeper() {
    keeper_watch_.reset();
    keeper_.reset();
    keeper_room_ = loop_.after(kKeeperRetryPeriod, [this] {
        renew_keeper();
        tell_keeper();
    });
}

void Service::watch_keeper() {
    if (!keeper_) return;
    keeper_watch_ = loop_.watch(keeper_.get(), EPOLLIN, [this](std::uint32_t) {
        KeeperAnswer answer{};
        int error;
        while ((error = receive_answer(keeper_.get(), answer)) == 0)
            if (answer.error_number)
                log(LOG_WARNING, {},
                    fmt::format("the keeper cannot look after one more child: {}",
                                std::strerror(answer.error_number)));
        if (error != EAGAIN) lose_keeper();
    });
}

/// Starts a keeper. It is yet to be told of all that run.
void Service::renew_keeper() {
    const Descriptor self = open_pidfd(::getpid());
    const std::string program = find_companion("warmfork-keeper");
    StartedKeeper started;
    const int error = program.empty() ? ENOENT
                      : !self         ? errno
                                      : start_keeper(program, self.get(), started);
    if (error) {
        lose_keeper();
        if (std::exchange(lacks_keeper_, true)) return;
        log(LOG_WARNING, {},
            fmt::format("cannot start warmfork-keeper ({}): children would be left behind if this "
                        "service were killed together with their clients",
                        std::strerror(error)));
        return;
    }
    lacks_keeper_ = false;
    keeper_ = std::move(started.socket);
    watch_keeper();
    untold_.clear();
    for (const auto& [id, child] : children_) untold_.push_back(id);
}

void Service::on_child_ended(std::uint64_t id) {
    const auto found = children_.find(id);
    if (found == children_.end()) return;
    ServedChild& child = found->second;
    ExitReport report;
    const int error = reap(child.pidfd.get(), WNOHANG, &report.status, &report.usage);
    if (error == EAGAIN) return;  // a thread that is not the first has ended by exec
    stopping_point("daemon.child-reaped");
    if (error)
        log(LOG_ERR, {child.template_name, 0, child.pid},
            fmt::format("the status of a child is lost: {}", std::strerror(error)));
    if (child.started) on_child_started(id);  // its last words come before its end
    const auto client = clients_.find(child.client);
    count_child(child, -1);
    if (client != clients_.end()) {
        if (!error) client->second.client.send(ServiceKind::exited, id, write_body(report));
        if (client->second.client.waits_for_room()) update_interest(client->second);
    }
    const bool was_detached = child.is_detached;
    if (child.is_used) note_run(child.template_name);
    children_.erase(found);
    publish_soon();
    if (was_detached) clear_cgroups({}, false);
    note_idleness();
    leave_when_empty();
}

/// Ends what a client leaves behind when it goes.
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
    kill_children_in_time(client, NamedTemplate::Clock::now());
}

/// Kills what is left of them when the grace period is over, which began at `since`.
void Service::kill_children_in_time(std::uint64_t client, NamedTemplate::Clock::time_point since) {
    killings_[client] = {since, loop_.at(since + kGracePeriodOfChildren,
                                         [this, client] { end_children(client, SIGKILL); })};
}

/// Counts a child; `change` is 1 or -1. It is its user's until it has ended, also when its client
/// has gone.
void Service::count_child(const ServedChild& child, int change) {
    const auto client = clients_.find(child.client);
    if (client != clients_.end())
        client->second.client.usage.children += static_cast<std::uint64_t>(change);
    for (Usage* usage : {&users_[child.user], &all_})
        usage->children += static_cast<std::uint64_t>(change);
}

}  // namespace warmfork::service
