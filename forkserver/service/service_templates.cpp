// Templates: what becomes of what clients ask for.
#include <fcntl.h>
#include <fmt/format.h>
#include <sys/epoll.h>
#include <unistd.h>

#include <algorithm>
#include <set>

#include "channel/stopping_point.hpp"
#include "owner/child_record.hpp"
#include "owner/child_start.hpp"
#include "owner/cold.hpp"
#include "service/log.hpp"
#include "service/service.hpp"
#include "warmfork.hpp"

namespace warmfork::service {
namespace {

// What no bell announces is looked at again after this time: an image that is to be preloaded once
// more, but not yet.
constexpr std::chrono::milliseconds kRetryPeriod{50};

}  // namespace

/// Serves whoever can be served, and sees to it that the next occasion is noticed.
void Service::attend(const std::string& name) {
    const auto found = templates_.find(name);
    if (found == templates_.end()) return;
    ServedTemplate& served = found->second;
    served.due.reset();
    const bool was_failing = bool(served.named.failure());
    for (NamedTemplate::Answer& answer : served.named.serve()) deliver(served, answer);
    if (const Outcome& failure = served.named.failure(); failure && !was_failing)
        log(LOG_ERR, {name, 0, 0, "template"}, failure->text);
    watch_processes(served);
    publish_soon();
    if (served.named.has_asks())
        served.retry = loop_.after(kRetryPeriod, [this, name] { retry(name); });
    else if (served.named.has_more_spares())
        served.retry = loop_.after(NamedTemplate::kCalm, [this, name] { attend(name); });
    else
        served.retry.reset();
    if (served.idle_timeout.count() > 0 && !served.idle)
        served.idle = loop_.after(served.idle_timeout, [this, name] { note_idle_template(name); });
}

/// Tries again for clients that have waited for a while. Where no descriptor was free there is no
/// spare for them.
void Service::retry(const std::string& name) {
    const auto found = templates_.find(name);
    if (found == templates_.end()) return;
    ServedTemplate& served = found->second;
    if (served.named.retry_spares())
        refuse_asks(served, {static_cast<std::uint64_t>(Stage::descriptors), EMFILE, 0,
                             "the service is out of descriptors"});
    attend(name);
}

void Service::refuse_asks(ServedTemplate& served, const Refusal& refusal) {
    for (NamedTemplate::Ask& ask : served.named.take_asks()) {
        NamedTemplate::Answer answer{&ask, {}, {}, refusal, true};
        deliver(served, answer);
    }
}

/// Attends to it soon, once for all that has happened.
void Service::attend_soon(const std::string& name) {
    const auto found = templates_.find(name);
    if (found == templates_.end() || found->second.due) return;
    found->second.due = loop_.soon([this, name] { attend(name); });
}

void Service::note_idle_template(const std::string& name) {
    const auto found = templates_.find(name);
    if (found == templates_.end()) return;
    ServedTemplate& served = found->second;
    const auto unused = NamedTemplate::Clock::now() - served.named.last_used();
    auto left = std::chrono::duration_cast<std::chrono::milliseconds>(served.idle_timeout - unused);
    // Without its base an edit of a layer would cost that preload too.
    if (!layers_on(name).empty()) left = served.idle_timeout;
    served.idle.reset();
    if (served.named.has_asks() || left.count() > 0) {
        served.idle =
            loop_.after(std::max(left, kRetryPeriod), [this, name] { note_idle_template(name); });
        return;
    }
    log(LOG_INFO, {name}, "nobody has spawned from this template for a while: it ends");
    templates_.erase(found);
}

void Service::watch_processes(ServedTemplate& served) {
    const std::string& name = served.named.definition().name;
    const std::vector<NamedTemplate::Process> processes = served.named.processes();
    std::erase_if(served.watched, [&](const auto& entry) {
        return std::find(processes.begin(), processes.end(), entry.second.process) ==
               processes.end();
    });
    for (const NamedTemplate::Process& process : processes) {
        if (served.watched.count(process->serial()) || process->bell() < 0) continue;
        WatchedProcess watched{process, {}, {}, NamedTemplate::Clock::now()};
        served.entry.count_start();
        const auto on_event = [this, name, serial = process->serial()](std::uint32_t) {
            on_process(name, serial);
        };
        watched.bell = loop_.watch(process->bell(), EPOLLIN, on_event);
        watched.end = loop_.watch(process->pidfd(), EPOLLIN, on_event);
        process->attend();  // from now on it rings
        served.watched.emplace(process->serial(), std::move(watched));
    }
}

void Service::on_process(const std::string& name, std::uint64_t serial) {
    const auto found = templates_.find(name);
    if (found == templates_.end()) return;
    ServedTemplate& served = found->second;
    const auto entry = served.watched.find(serial);
    if (entry == served.watched.end()) return;
    const NamedTemplate::Process process = entry->second.process;
    process->attend();
    if (WatchedProcess& watched = entry->second; !watched.is_ready) {
        const Outcome failure = process->wait_ready(TemplateProcess::Clock::now());
        watched.is_ready = !failure;
        if (!failure)
            served.entry.set_preload(std::chrono::duration_cast<std::chrono::milliseconds>(
                NamedTemplate::Clock::now() - watched.began));
        if (served.is_automatic && !is_not_yet(failure))
            if (note_automatic_start(served, process, failure)) return;
    }
    if (process->has_ended()) {
        log(process->is_over() ? LOG_DEBUG : LOG_WARNING, {name},
            fmt::format("the template {} has ended", process->pid()));
        entry->second.end.reset();  // stays readable
    }
    if (served.named.renew_stale()) served.wants_to_learn = true;
    attend_soon(name);
}

void Service::show_image(Client& client, TemplateProcess& process) {
    const std::uint64_t id = image_id(process);
    if (client.images.count(id)) return;
    // A client keeps the files of an image open, an inotify instance among them, of which a user
    // has few.
    std::set<std::uint64_t> existing;
    for (auto& [name, served] : templates_)
        for (const NamedTemplate::Process& other : served.named.processes())
            existing.insert(image_id(*other));
    std::erase_if(client.images, [&](std::uint64_t known) {
        if (existing.count(known)) return false;
        client.send(ServiceKind::gone, known, {});
        return true;
    });
    client.images.insert(id);
    SharedImage image;
    image.pid = static_cast<std::uint64_t>(process.pid());
    image.directory = process.at_start().directory;
    image.environment = process.at_start().environment;
    const ReadVariables variables = process.variables();
    image.reads_all_variables = variables.all;
    image.variables.assign(variables.names.begin(), variables.names.end());
    for (const auto& [module, file] : process.shadowable())
        image.shadowable.push_back(module + "=" + file);
    for (int number : process.image_descriptors())
        image.descriptors.push_back(static_cast<std::uint64_t>(number));
    image.owner_state = encode_owner_state(process.at_start().state);
    const auto [segment, inotify] = process.shown_files();
    std::vector<int> descriptors{segment};
    if (inotify >= 0) descriptors.push_back(inotify);
    client.send(ServiceKind::image, id, write_body(image), descriptors);
}

void Service::deliver(ServedTemplate& served, NamedTemplate::Answer& answer) {
    const NamedTemplate::Ask& ask = *answer.ask;
    if (ask.client == NamedTemplate::kNoClient) return lay_foundation(answer);
    const auto found = clients_.find(ask.client);
    if (found == clients_.end()) {
        if (answer.spare) end_child(answer.spare->identity());
        return;
    }
    Client& client = found->second.client;
    count_answered(client, answer.spare ? 1 : ask.wanted.count, answer.is_last ? ask.size : 0);
    if (!answer.spare) {
        client.send(ServiceKind::refused, ask.request, write_body(answer.refusal));
        return update_interest(found->second);
    }
    ServedChild child;
    child.pid = answer.spare->pid;
    child.pidfd = open_process(answer.spare->identity());
    child.client = client.id();
    child.user = client.peer().uid;
    child.is_detached = (ask.wanted.flags & kLeaseDetached) != 0;
    child.template_name = served.named.definition().name;
    child.request = ask.request;
    if (!child.pidfd) {
        const int error = errno;
        end_child(answer.spare->identity());
        return refuse(client, ask.request, Stage::fork, error, "cannot open a pidfd of the child");
    }
    // The keeper is told before anything is run: this process may be killed at any line.
    const std::uint64_t id = add_child(std::move(child));
    stopping_point("daemon.child-chosen");
    give_to_keeper(id);
    stopping_point("daemon.child-kept");
    if (ask.is_run) {
        start_fixed_command(served, client, answer, id);
    } else {
        show_image(client, *answer.process);
        const std::uint64_t image = image_id(*answer.process);
        const bool is_limited = limits_of(children_.at(id).template_name) != nullptr;
        if (!is_limited) {
            send_lease(client.id(), ask.request, id, image, answer.spare->mailbox.get());
            return place(id);
        }
        // The child's limits hold from its first instruction on.
        const auto spare = std::make_shared<Born>(std::move(*answer.spare));
        return place(id, [this, spare, id, image, client = client.id(), request = ask.request] {
            send_lease(client, request, id, image, spare->mailbox.get());
        });
    }
    update_interest(found->second);
}

void Service::send_lease(std::uint64_t client_id, std::uint64_t request, std::uint64_t id,
                         std::uint64_t image, int mailbox) {
    const auto found = clients_.find(client_id);
    if (found == clients_.end()) return;  // the mailbox is closed, and so the child ends
    Client& client = found->second.client;
    const auto child = children_.find(id);
    if (child == children_.end()) {
        refuse(client, request, Stage::fork, ESRCH, "the parked child has ended");
    } else {
        const int descriptors[] = {child->second.pidfd.get(), mailbox};
        const auto pid = static_cast<std::uint64_t>(child->second.pid);
        client.send(ServiceKind::leased, request, write_body(LeasedChild{id, pid, image}),
                    descriptors);
        stopping_point("daemon.lease-sent");
    }
    update_interest(found->second);
}

/// Starts it for a client of another user, which has no say in what is run, and no hold of the
/// mailbox.
void Service::start_fixed_command(ServedTemplate& served, Client& client,
                                  NamedTemplate::Answer& answer, std::uint64_t id) {
    const std::vector<const char*> arguments = detail::pointers(served.named.definition().command);
    const std::vector<const char*> environment =
        detail::pointers(answer.process->at_start().environment);
    warmfork_descriptor map[3];
    for (int number : {0, 1, 2})
        map[number] = {answer.ask->descriptors.get()[static_cast<std::size_t>(number)].get(),
                       number};
    warmfork_request given;
    warmfork_request_init(&given);
    given.arguments = arguments.data();
    given.environment = environment.data();
    given.directory = answer.process->at_start().directory.c_str();
    given.descriptors = map;
    given.descriptor_count = std::size(map);
    given.flags = WARMFORK_SIGNAL_MASK;  // none: this service's own are blocked
    Request request;
    Outcome failure = request.read(given);
    const OwnerState& then = answer.process->at_start().state;
    const OwnerState now = read_owner_state();
    // What is not known is not what differs.
    for (const OwnerState* state : {&then, &now})
        if (!failure && !state->unknown.empty())
            failure = Failure{Stage::record, ENOTSUP, 0,
                              "of the service's state this cannot be read: " + state->unknown};
    ChildRecord record;
    ColdReason cold;  // which is not for a client of another user
    if (!failure)
        failure = make_child_record(request, then, now, {Lifetime::detached, 0, false, true},
                                    record, cold);
    int ends[2] = {-1, -1};
    if (!failure && ::pipe2(ends, O_CLOEXEC) < 0)
        failure = make_failure(Stage::descriptors, errno, "cannot make a pipe for the reply");
    if (failure) {
        signal_pidfd(children_.at(id).pidfd.get(), SIGKILL);
        return refuse(client, answer.ask->request, failure->stage, failure->error_number,
                      failure->text);
    }
    // Whatever it starts is to have its client's limits, and to end with the client.
    const auto command = std::make_shared<FixedCommand>(
        FixedCommand{std::move(record), std::move(answer.ask->descriptors),
                     std::move(*answer.spare), Descriptor(ends[0]), Descriptor(ends[1])});
    place(id, [this, command, id, client = client.id(), request = answer.ask->request] {
        hand_over_command(client, request, id, *command);
    });
}

/// To a child that has been moved to where its client's live.
void Service::hand_over_command(std::uint64_t client_id, std::uint64_t request, std::uint64_t id,
                                FixedCommand& command) {
    const auto client = clients_.find(client_id);
    const auto child = children_.find(id);
    if (client == clients_.end()) return;  // the mailbox is closed, and so the child ends
    Outcome failure = child == children_.end()
                          ? make_failure(Stage::fork, ESRCH, "the parked child has ended")
                          : send_record(command.record, command.spare, command.written.get());
    if (!failure) {
        child->second.reply = std::move(command.reply);
        child->second.mailbox = std::move(command.spare.mailbox);
        child->second.starting = NamedTemplate::Clock::now();
        command.written.reset();  // the child has its own
        return watch_start(id);
    }
    if (child != children_.end()) signal_pidfd(child->second.pidfd.get(), SIGKILL);
    refuse(client->second.client, request, failure->stage, failure->error_number, failure->text);
    update_interest(client->second);
}

/// Watches for the end of file behind what the child has to say: it has started, or it never will.
/// One that says nothing in time is given up.
void Service::watch_start(std::uint64_t id) {
    ServedChild& child = children_.at(id);
    child.started =
        loop_.watch(child.reply.get(), 0, [this, id](std::uint32_t) { on_child_started(id); });
    child.start_due =
        loop_.at(child.starting + kStartPatience, [this, id] { on_child_started(id); });
}

void Service::on_child_started(std::uint64_t id) {
    const auto found = children_.find(id);
    if (found == children_.end()) return;
    ServedChild& child = found->second;
    child.started.reset();
    child.start_due.reset();
    Born born;
    born.pid = child.pid;
    born.mailbox = std::move(child.mailbox);
    const Descriptor reply = std::move(child.reply);
    const Outcome failure = await_start(born, reply.get(), WaitClock::now());
    const auto client = clients_.find(child.client);
    if (client == clients_.end()) return;
    if (failure) {
        signal_pidfd(child.pidfd.get(), SIGKILL);  // it ends by itself, unless it hangs
        return refuse(client->second.client, child.request, failure->stage, failure->error_number,
                      failure->text);
    }
    const int pidfd = child.pidfd.get();
    client->second.client.send(
        ServiceKind::leased, child.request,
        write_body(LeasedChild{id, static_cast<std::uint64_t>(child.pid), 0}),
        std::span(&pidfd, 1));
    update_interest(client->second);
}

void Service::note_use(Client& client, const ServiceMessage& message) {
    const std::optional<UseReport> report = read_use_report(message.body);
    if (!report || report->reason >= WARMFORK_REASON_COUNT)
        return lose_client(client.id(), "it sent a report that is none");
    const auto served = templates_.find(report->name);
    if (served == templates_.end()) return;
    publish_soon();
    if (report->reason != WARMFORK_REASON_NONE)
        return served->second.entry.count_cold(static_cast<warmfork_reason>(report->reason));
    ++client.spawned;
    served->second.entry.count_spawn(std::chrono::microseconds(report->microseconds));
    const auto child = children_.find(message.id);
    if (child == children_.end())
        note_run(report->name);  // it had ended before its client could say so
    else if (child->second.client == client.id())
        child->second.is_used = true;
}

TemplateState Service::state_of(ServedTemplate& served) {
    const NamedTemplate::Process first = served.named.first();
    if (!first) return TemplateState::idle;
    if (first->wait_ready(TemplateProcess::Clock::now())) return TemplateState::preloading;
    return first->watch().look() == ImageWatch::Freshness::stale ? TemplateState::stale
                                                                 : TemplateState::ready;
}

}  // namespace warmfork::service
