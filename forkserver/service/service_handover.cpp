// How the service execs itself: what the next one has to know, and how it takes it.
#include <fcntl.h>
#include <fmt/format.h>
#include <time.h>
#include <unistd.h>

#include <algorithm>
#include <set>
#include <stdexcept>

#include "channel/message_socket.hpp"
#include "channel/stopping_point.hpp"
#include "protocol/handover.hpp"
#include "service/log.hpp"
#include "service/notify.hpp"
#include "service/service.hpp"

namespace warmfork::service {
namespace {

// What others have sent stays open across exec where it takes longer than this to be closed.
constexpr std::chrono::milliseconds kDisposalPatience{500};

/// Makes the descriptor this process's from now on, and not that of programs that it starts.
Descriptor adopt(HandedDescriptor descriptor) {
    if (descriptor.number >= 0) ::fcntl(descriptor.number, F_SETFD, FD_CLOEXEC);
    return Descriptor(descriptor.number);
}

std::vector<Descriptor> adopt(const std::vector<HandedDescriptor>& numbers) {
    std::vector<Descriptor> descriptors;
    for (HandedDescriptor number : numbers) descriptors.push_back(adopt(number));
    return descriptors;
}

HandedDescriptor lend(const Descriptor& descriptor) {
    return {descriptor.get()};
}

std::vector<HandedDescriptor> lend(const std::vector<Descriptor>& descriptors) {
    std::vector<HandedDescriptor> numbers;
    for (const Descriptor& descriptor : descriptors) numbers.push_back(lend(descriptor));
    return numbers;
}

std::string as_text(std::span<const std::byte> bytes) {
    return {reinterpret_cast<const char*>(bytes.data()), bytes.size()};
}

HandedClient hand_over(std::uint64_t id, const Client& client) {
    const Peer& peer = client.peer();
    HandedClient handed{.id = id,
                        .socket = {client.socket()},
                        .uid = peer.uid,
                        .pid = static_cast<std::uint64_t>(peer.pid),
                        .pidfd = lend(peer.pidfd),
                        .name = peer.name,
                        .has_greeted = client.has_greeted,
                        .spawned = client.spawned};
    for (const Client::Message& message : client.waiting())
        handed.waiting.push_back({static_cast<std::uint64_t>(message.kind), message.id,
                                  as_text(message.body), lend(message.descriptors)});
    return handed;
}

/// Keeps what the client has not been sent yet.
void queue_messages(std::vector<HandedMessage>& messages, Client& client) {
    for (HandedMessage& message : messages) {
        const auto body = std::as_bytes(std::span(message.body));
        client.queue({static_cast<ServiceKind>(message.kind),
                      message.id,
                      {body.begin(), body.end()},
                      adopt(message.descriptors)});
    }
}

using Clock = NamedTemplate::Clock;

HandedWait hand_over(std::uint64_t client, std::uint64_t request, Clock::time_point since) {
    const std::chrono::nanoseconds time = since.time_since_epoch();  // of CLOCK_MONOTONIC
    return {client, request, static_cast<std::uint64_t>(time.count())};
}

HandedAsk hand_over(const NamedTemplate::Ask& ask) {
    return {ask.client,
            ask.request,
            ask.size,
            ask.is_run,
            as_text(write_body(ask.wanted)),
            lend(ask.descriptors.get())};
}

NamedTemplate::Ask take_over(const HandedAsk& handed) {
    NamedTemplate::Ask ask;
    ask.client = handed.client;
    ask.request = handed.request;
    ask.size = handed.size;
    ask.is_run = handed.is_run != 0;
    if (auto wanted = read_lease_request(std::as_bytes(std::span(handed.wanted))))
        ask.wanted = std::move(*wanted);
    return ask;
}

}  // namespace

std::vector<std::byte> Service::hand_over(std::vector<int>& ret_descriptors) {
    Handover handover{.generation = generation_,
                      .last_client = last_client_,
                      .last_child = last_child_,
                      .listener = lend(listener_.socket),
                      .lock = lend(listener_.lock),
                      .path = listener_.path,
                      .keeper = lend(keeper_)};
    for (auto& [id, served] : clients_) {
        served.client.flush();
        handover.clients.push_back(service::hand_over(id, served.client));
        if (!served.client.has_greeted)
            handover.waits.push_back(service::hand_over(id, 0, served.connected));
    }
    for (const auto& [client, killing] : killings_)
        handover.waits.push_back(service::hand_over(client, 0, killing.since));
    for (const auto& [id, child] : children_)
        handover.children.push_back({id,
                                     static_cast<std::uint64_t>(child.pid),
                                     lend(child.pidfd),
                                     child.client,
                                     child.is_detached,
                                     child.is_used,
                                     child.template_name,
                                     lend(child.reply),
                                     {child.mailbox.get()},
                                     child.request});
    for (const auto& [id, child] : children_)
        if (child.reply)
            handover.waits.push_back(
                service::hand_over(child.client, child.request, child.starting));
    for (const auto& [name, served] : templates_) {
        HandedTemplate& handed = handover.templates.emplace_back();
        handed.name = name;
        for (const NamedTemplate::Ask& ask : served.named.asks()) {
            handed.asks.push_back(service::hand_over(ask));
            handover.waits.push_back(service::hand_over(ask.client, ask.request, ask.since));
        }
    }
    handover.untold.assign(untold_.begin(), untold_.end());
    handover.sight = {sight_.number()};
    handover.retired_sights = sight_.retired();
    const HandoverWriter writer(handover);
    ret_descriptors = writer.descriptors();
    return writer.bytes();
}

void Service::take_clients(std::vector<HandedClient>& clients, const Beginnings& beginnings) {
    for (HandedClient& handed : clients) {
        Peer peer{static_cast<uid_t>(handed.uid), static_cast<pid_t>(handed.pid),
                  adopt(handed.pidfd), std::move(handed.name)};
        const auto [place, _] =
            clients_.try_emplace(handed.id, handed.id, adopt(handed.socket), std::move(peer));
        Client& client = place->second.client;
        client.has_greeted = handed.has_greeted != 0;
        client.spawned = handed.spawned;
        if (const auto began = beginnings.find({handed.id, 0}); began != beginnings.end())
            place->second.connected = began->second;
        queue_messages(handed.waiting, client);
    }
}

void Service::take_children(std::vector<HandedChild>& children, const Beginnings& beginnings) {
    for (HandedChild& handed : children) {
        ServedChild child;
        child.pid = static_cast<pid_t>(handed.pid);
        child.pidfd = adopt(handed.pidfd);
        child.client = handed.client;
        child.is_detached = handed.is_detached != 0;
        child.is_used = handed.is_used != 0;
        child.template_name = std::move(handed.template_name);
        child.reply = adopt(handed.reply);
        child.mailbox = OwnedSocket(adopt(handed.mailbox));
        child.request = handed.request;
        if (const auto began = beginnings.find({handed.client, handed.request});
            child.reply && began != beginnings.end())
            child.starting = began->second;
        children_.emplace(handed.id, std::move(child));
    }
}

void Service::take_asks(const std::vector<HandedTemplate>& templates,
                        const Beginnings& beginnings) {
    for (const auto& [name, asks] : templates) {
        // The template was in use, so it is to be warm again soon.
        ServedTemplate* served = find_template(name);
        if (served) static_cast<void>(served->named.start());
        for (const HandedAsk& handed : asks) {
            NamedTemplate::Ask ask = service::take_over(handed);
            if (const auto began = beginnings.find({handed.client, handed.request});
                began != beginnings.end())
                ask.since = began->second;
            const auto client = clients_.find(ask.client);
            const uid_t user =
                client == clients_.end() ? ::geteuid() : client->second.client.peer().uid;
            ask.descriptors = {adopt(handed.descriptors), disposal_of(user)};
            if (client == clients_.end()) continue;
            if (!served) served = start_automatic(ask.wanted);
            if (!served) {
                refuse(client->second.client, ask.request, Stage::launch, ENOENT,
                       explain_absence(name));
                continue;
            }
            count_asked(client->second.client, ask.wanted.count, ask.size);
            served->named.add(std::move(ask));
        }
        attend_soon(name);
    }
}

/// Watches clients and children as if they had come to this service.
void Service::watch_taken_over() {
    for (auto& [id, served] : clients_) {
        const Peer& peer = served.client.peer();
        served.entry = board_.client_entry(peer.pid, peer.uid, peer.name);
        watch_client(served);
        update_interest(served);
    }
    for (auto& [id, child] : children_) {
        watch_child(id);
        if (child.reply) watch_start(id);
        // Children of clients that have gone are about to end, or are detached, as only this user's
        // are.
        const auto client = clients_.find(child.client);
        child.user = client == clients_.end() ? ::geteuid() : client->second.client.peer().uid;
        count_child(child, 1);
    }
}

void Service::part_with_orphans(const Beginnings& beginnings) {
    // These are the ones whose client went at the very end of the service before this one.
    std::set<std::uint64_t> orphans;
    for (const auto& [id, child] : children_)
        if (!clients_.count(child.client)) orphans.insert(child.client);
    for (std::uint64_t client : orphans) {
        const auto began = beginnings.find({client, 0});
        if (began == beginnings.end())
            end_children(client, SIGTERM);
        else
            kill_children_in_time(client, began->second);
    }
    // With an error in the configuration nobody knows who may connect.
    std::vector<std::uint64_t> unwanted;
    for (const auto& [id, served] : clients_)
        if (is_reading_ && !may_connect(served.client.peer().uid)) unwanted.push_back(id);
    for (std::uint64_t id : unwanted) lose_client(id, "its user may not use this service any more");
}

void Service::take_over(std::span<const std::byte> left) {
    Handover handover;
    // Without its socket this one would serve nobody: the next does, which systemd or a client
    // starts.
    if (!HandoverReader(left).read(handover))
        throw std::runtime_error(
            "the service before this one was of another version: its clients have to connect "
            "again, and their children end with them");
    generation_ = handover.generation + 1;
    last_client_ = handover.last_client;
    last_child_ = handover.last_child;
    listener_.socket = adopt(handover.listener);
    listener_.lock = adopt(handover.lock);
    listener_.path = std::move(handover.path);
    keeper_ = adopt(handover.keeper);
    Beginnings beginnings;
    for (const HandedWait& wait : handover.waits)
        if (wait.since != 0)
            beginnings.emplace(std::pair(wait.client, wait.request),
                               Clock::time_point(std::chrono::nanoseconds(wait.since)));
    take_clients(handover.clients, beginnings);
    take_children(handover.children, beginnings);
    take_asks(handover.templates, beginnings);
    untold_.assign(handover.untold.begin(), handover.untold.end());
    // It keeps the number that clients know; what is said of it comes after all that was said
    // before.
    if (handover.sight.number >= 0) {
        sight_ = Sight(adopt(handover.sight), std::move(handover.retired_sights));
    } else {
        // The service before this one was of a version that had none.
        for (auto& [id, served] : clients_)
            if (served.client.has_greeted) welcome(served.client);
    }
    if (!handover.is_whole) log(LOG_ERR, {}, "what the service before this one left is cut short");
    watch_taken_over();
    part_with_orphans(beginnings);
    stopping_point("daemon.taken-over");
    log(LOG_INFO, {},
        fmt::format("goes on with {} clients and {} children", clients_.size(), children_.size()));
}

/// Execs this program with what is left for it. Returns only if that failed, with errno set.
void Service::exec_again() {
    if (saving_automatic_) save_automatic();
    background_.finish();
    for (auto& [user, disposal] : disposals_) disposal->prepare_for_exec(kDisposalPatience);
    std::vector<int> kept;
    const Descriptor memory = make_sealed_memfd(hand_over(kept));
    if (!memory) return;
    kept.push_back(memory.get());
    // The asks are part of what is left, and a template that one of them held would not be waited
    // for: it and its spares would stay zombies. Leased spares and children outlive their
    // templates.
    for (auto& [name, served] : templates_) unserved_[name] = served.named.take_asks();
    templates_.clear();
    ::setenv(kHandoverVariable, fmt::format("{}", memory.get()).c_str(), 1);
    for (int number : kept) ::fcntl(number, F_SETFD, 0);
    stopping_point("daemon.before-exec");
    std::vector<char*> arguments;
    for (std::string& argument : options_.command) arguments.push_back(argument.data());
    arguments.push_back(nullptr);
    ::execv(options_.program.c_str(), arguments.data());
    const int error = errno;
    for (int number : kept) ::fcntl(number, F_SETFD, FD_CLOEXEC);
    ::unsetenv(kHandoverVariable);
    errno = error;
}

void Service::reload() {
    reloading_.reset();
    if (is_stopping_) return;
    timespec now;
    ::clock_gettime(CLOCK_MONOTONIC, &now);
    const auto microseconds = static_cast<unsigned long long>(now.tv_sec) * 1'000'000 +
                              static_cast<unsigned long long>(now.tv_nsec) / 1000;
    if (!notify_manager(fmt::format("RELOADING=1\nMONOTONIC_USEC={}", microseconds),
                        kManagerPatience))
        log(LOG_WARNING, {}, "the service's manager was not told that it reloads");
    log(LOG_INFO, {}, "reloading");
    exec_again();
    log(LOG_ERR, {},
        fmt::format("cannot execute {} again, and goes on as it is: {}", options_.program,
                    std::strerror(errno)));
    for (auto& [name, asks] : std::exchange(unserved_, {})) {
        ServedTemplate* served = find_template(name);
        while (!asks.empty()) {
            if (!served) served = start_automatic(asks.front().wanted);
            if (!served) break;
            served->named.add(std::move(asks.front()));
            asks.pop_front();
        }
        attend_soon(name);
    }
    say_ready();
}

}  // namespace warmfork::service
