// Clients: how they come and go, and what they ask for.
#include <fcntl.h>
#include <fmt/format.h>
#include <sys/epoll.h>
#include <unistd.h>

#include <algorithm>

#include "channel/stopping_point.hpp"
#include "service/log.hpp"
#include "service/service.hpp"

namespace warmfork::service {
namespace {

// Whoever has not said hello after this time is not a client.
constexpr std::chrono::seconds kGreetingPatience{10};
// How many messages of one client are taken in a row, before others have their turn.
constexpr int kMostMessages = 32;
constexpr std::size_t kMostClients = 4096;
// The most clients of one user other than the service's own, so that none takes the places of all.
constexpr std::ptrdiff_t kMostClientsOfGuest = 256;

// How many descriptors that others have sent may wait to be closed.
constexpr std::size_t kMostUndisposed = 512;
constexpr std::chrono::milliseconds kDisposalInterval{50};

// This long after the text that proves the sight was shown, another one takes its place.
constexpr std::chrono::seconds kSightPeriod{1};

/// Are descriptors free for its socket and its pidfd? Returns false with errno set where not.
bool has_descriptors_for_client(int any) {
    const Descriptor one(::fcntl(any, F_DUPFD_CLOEXEC, 0));
    const Descriptor other(::fcntl(any, F_DUPFD_CLOEXEC, 0));
    return one && other;  // what closes them succeeds, and keeps errno
}

/// Returns what `usage` has too much of with `count` children more, whose requests take `size`
/// bytes; empty where it is within its limits.
std::string find_excess(Usage& usage, const ClientLimits& limits, std::uint64_t count,
                        std::size_t size) {
    if (usage.children + usage.asked_children + count > limits.children)
        return fmt::format("{} children are alive and {} asked for, of {}", usage.children,
                           usage.asked_children, limits.children);
    if (usage.asked_bytes + size > limits.record_bytes)
        return fmt::format("requests that wait take {} bytes, of {}", usage.asked_bytes + size,
                           limits.record_bytes);
    if (!usage.admit_spawns(count, limits.spawns_per_second, Usage::Clock::now()))
        return fmt::format("there may be {} spawns a second", limits.spawns_per_second);
    return {};
}

}  // namespace

bool Service::may_connect(uid_t user) const {
    const auto& allowed = configuration_.daemon->allowed_users;
    return user == ::geteuid() || std::find(allowed.begin(), allowed.end(), user) != allowed.end();
}

/// Users who may not connect share the disposal of this one.
constexpr uid_t kStrangers = static_cast<uid_t>(-1);

std::shared_ptr<Disposal> Service::disposal_of(uid_t user) {
    std::shared_ptr<Disposal>& disposal = disposals_[may_connect(user) ? user : kStrangers];
    if (!disposal) disposal = std::make_shared<Disposal>();
    return disposal;
}

/// Disposes of descriptors. Returns false where this user has sent more than can be closed.
bool Service::dispose_of(uid_t user, std::vector<Descriptor> descriptors) {
    if (descriptors.empty()) return true;
    const std::shared_ptr<Disposal> disposal = disposal_of(user);
    for (Descriptor& descriptor : descriptors) disposal->close(std::move(descriptor));
    return disposal->waiting() <= kMostUndisposed;
}

/// Says to a client why it is not let in. The connection ends with `socket`.
void Service::turn_away(Descriptor socket, int error_number, std::string text) {
    const auto body =
        write_body(Refusal{static_cast<std::uint64_t>(Stage::launch),
                           static_cast<std::uint64_t>(error_number), 0, std::move(text)});
    static_cast<void>(
        send_service_message(socket.get(), ServiceKind::refused, 0, body, {}, MSG_DONTWAIT));
    // What it has sent is not read, and is closed with the socket.
    ::shutdown(socket.get(), SHUT_RDWR);
    disposal_of(kStrangers)->close(std::move(socket));
}

/// Looks again after that time: the listening socket stays readable.
void Service::pause_accepting(std::chrono::milliseconds time) {
    connections_.reset();
    reconnect_ = loop_.after(time, [this] {
        connections_ = loop_.watch(listener_.socket.get(), EPOLLIN,
                                   [this](std::uint32_t) { accept_clients(); });
    });
}

void Service::accept_clients() {
    // Those who are turned away come no faster than they can be let go of.
    if (disposal_of(kStrangers)->waiting() > kMostUndisposed)
        return pause_accepting(kDisposalInterval);

    for (int taken = 0; taken < kMostMessages; ++taken) {
        // One that was accepted and cannot be kept would be lost, where one that waits is not.
        const bool has_room = has_descriptors_for_client(listener_.socket.get());
        Descriptor socket = has_room ? accept(listener_) : Descriptor();
        if (!socket) {
            if (errno == EMFILE || errno == ENFILE) {
                log(LOG_ERR, {}, "no descriptor is free for another client: waiting for some");
                pause_accepting(std::chrono::seconds(1));
            }
            return;
        }
        Peer peer;
        if (int error = read_peer(socket.get(), peer)) {
            log(LOG_NOTICE, {},
                fmt::format("a client cannot be identified: {}", std::strerror(error)));
            disposal_of(kStrangers)->close(std::move(socket));
            continue;
        }
        if (!may_connect(peer.uid)) {
            log(LOG_WARNING, {{}, peer.pid, 0, "access"},
                fmt::format("refused: {} of user {} may not use this service", peer.name,
                            peer.uid));
            turn_away(std::move(socket), EACCES,
                      fmt::format("user {} may not use this service", peer.uid));
            continue;
        }
        const bool is_guest = peer.uid != ::geteuid();
        const auto of_guest =
            std::count_if(clients_.begin(), clients_.end(), [&](const auto& entry) {
                return is_guest && entry.second.client.peer().uid == peer.uid;
            });
        if (clients_.size() >= kMostClients || of_guest >= kMostClientsOfGuest) {
            log(LOG_WARNING, {{}, peer.pid, 0, "limit"}, "refused: too many clients");
            turn_away(std::move(socket), EAGAIN, "the service has as many clients as it may have");
            continue;
        }
        add_client(++last_client_, std::move(socket), std::move(peer));
    }
}

void Service::add_client(std::uint64_t id, Descriptor socket, Peer peer) {
    const auto [place, _] = clients_.try_emplace(id, id, std::move(socket), std::move(peer));
    ServedClient& served = place->second;
    const Peer& known = served.client.peer();
    served.entry = board_.client_entry(known.pid, known.uid, known.name);
    watch_client(served);
    note_idleness();
    say_status();
    stopping_point("daemon.client-accepted");
}

void Service::watch_client(ServedClient& served) {
    const std::uint64_t id = served.client.id();
    // Whoever sends need not be who has connected. A lease whose sender is not known is refused.
    const int yes = 1;
    if (::setsockopt(served.client.socket(), SOL_SOCKET, SO_PASSCRED, &yes, sizeof yes) < 0)
        log(LOG_WARNING, {{}, served.client.peer().pid},
            fmt::format("cannot learn who sends a client's messages: {}", std::strerror(errno)));
    served.readable = loop_.watch(served.client.socket(), EPOLLIN,
                                  [this, id](std::uint32_t events) { on_client(id, events); });
    // The client may have forked a copy that holds the connection open.
    served.gone = loop_.watch(served.client.peer().pidfd.get(), EPOLLIN,
                              [this, id](std::uint32_t) { lose_client(id, ""); });
    if (!served.client.has_greeted)
        served.greeting = loop_.at(served.connected + kGreetingPatience,
                                   [this, id] { lose_client(id, "it did not say hello"); });
}

void Service::update_interest(ServedClient& served) {
    if (!served.readable) return;
    const std::uint32_t room = served.client.waits_for_room() ? EPOLLOUT : 0u;
    const std::uint32_t input = served.client.is_clogged() ? 0u : EPOLLIN;
    served.readable.set_events(room | input);
}

void Service::on_client(std::uint64_t id, std::uint32_t events) {
    const auto found = clients_.find(id);
    if (found == clients_.end()) return;
    ServedClient& served = found->second;
    // A client that does not read and has gone is not read from either: writing shows that.
    if (events & (EPOLLOUT | EPOLLHUP | EPOLLERR)) served.client.flush();
    // What a client asks behind a reload is answered by the service as it is then.
    for (int taken = 0; taken < kMostMessages && !served.client.is_clogged() && !reloading_;
         ++taken) {
        ServiceMessage message;
        const int error = served.client.receive(message);
        if (error == EAGAIN || error == EINTR) break;
        const uid_t user = served.client.peer().uid;
        take(served, error, message);
        // This is what it has sent and nobody has kept.
        if (!dispose_of(user, std::move(message.descriptors)))
            lose_client(id, "it sends more descriptors than can be closed");
        if (clients_.find(id) == clients_.end()) return;
    }
    if (served.client.is_broken()) return lose_client(id, "");
    update_interest(served);
}

/// Takes a message; `error` is what came of receiving it.
void Service::take(ServedClient& served, int error, ServiceMessage& message) {
    const std::uint64_t id = served.client.id();
    if (error == ECONNRESET) return lose_client(id, "");
    if (error == EMFILE) {
        log(LOG_ERR, {{}, served.client.peer().pid}, "no descriptor is free for its message");
        return refuse(served.client, message.id, Stage::descriptors, EMFILE,
                      "the service is out of descriptors");
    }
    if (error == EPROTONOSUPPORT) {
        // Its own version is in the header of the answer.
        refuse(served.client, 0, Stage::launch, EPROTONOSUPPORT,
               fmt::format("the service speaks version {} of the protocol", kServiceVersion));
        return lose_client(id, "it speaks another version");
    }
    if (error) return lose_client(id, "it sent what is no message");
    dispatch(served, message);
}

void Service::refuse(Client& client, std::uint64_t request, Stage stage, int error_number,
                     std::string text) {
    client.send(ServiceKind::refused, request,
                write_body(Refusal{static_cast<std::uint64_t>(stage),
                                   static_cast<std::uint64_t>(error_number), 0, std::move(text)}));
}

void Service::welcome(Client& client) {
    client.send(ServiceKind::welcome, 0,
                write_body(Welcome{static_cast<std::uint64_t>(::getpid()), sight_.number()}));
}

void Service::dispatch(ServedClient& served, ServiceMessage& message) {
    Client& client = served.client;
    if (!client.has_greeted) {
        if (message.kind != ServiceKind::hello)
            return lose_client(client.id(), "it did not say hello first");
        client.has_greeted = true;
        served.greeting.reset();
        if (int error = let_descriptors_through(client.socket(), true))
            log(LOG_WARNING, {{}, client.peer().pid},
                fmt::format("a client may send no descriptors: {}", std::strerror(error)));
        return welcome(client);
    }
    switch (message.kind) {
        case ServiceKind::find:
            return find(client, message);
        case ServiceKind::lease:
            return lease(client, message);
        case ServiceKind::run:
            return run(client, message);
        case ServiceKind::signal:
            return signal_child(client, message);
        case ServiceKind::manage:
            return manage(client, message);
        case ServiceKind::used:
            return note_use(client, message);
        case ServiceKind::missed:
            client.images.erase(message.id);
            return;
        default:
            return lose_client(client.id(), "it sent a message of an unknown kind");
    }
}

/// May the client lease? A user other than the service's own may only run fixed commands.
bool Service::may_lease(const Client& client) const {
    return client.peer().uid == ::geteuid();
}

/// Refuses a client that is less free than this service, with a reason to start cold: a process of
/// this user that is confined must not have a child here that is not. Returns false where it has
/// been refused.
bool Service::check_confinement(Client& client, const ServiceMessage& message,
                                std::string_view sight) {
    if (!renewing_sight_)
        renewing_sight_ = loop_.after(kSightPeriod, [this] {
            renewing_sight_.reset();
            sight_.renew(Sight::Clock::now());
        });
    const Peer& peer = client.peer();
    std::string why;
    if (message.sender != peer.pid)
        why = "the request comes from another process than the one that has connected";
    else if (!sight_.verify(sight, Sight::Clock::now()))
        why =
            "this process may not look at the service (/proc, Landlock, a security module), so "
            "that it is confined, or uses an older library";
    else if (int error = find_confinement(peer, why)) {
        refuse(client, message.id, Stage::descriptors, error, "the service is out of descriptors");
        return false;
    }
    if (why.empty()) return true;
    client.send(
        ServiceKind::refused, message.id,
        write_body(Refusal{static_cast<std::uint64_t>(Stage::eligibility), 0,
                           WARMFORK_REASON_OWNER_CHANGED, "compared with the service: " + why}));
    return false;
}

/// Refuses a request beyond the limits of the user, who may have many connections, or of all users
/// together, and logs that. Returns false where it has been refused.
bool Service::admit_request(Client& client, const ServedTemplate& served, std::uint64_t request,
                            std::uint64_t count, std::size_t size) {
    std::string text = find_excess(all_, configuration_.daemon->limits_of_all, count, size);
    if (!text.empty()) {
        text = "this service is over its limit for all users together: " + text;
    } else {
        text = find_excess(users_[client.peer().uid], served.limits, count, size);
        if (text.empty()) return true;
        text = fmt::format("user {} is over its limit: {}", client.peer().uid, text);
    }
    log(LOG_NOTICE, {served.named.definition().name, client.peer().pid, 0, "limit"}, text);
    refuse(client, request, Stage::fork, EAGAIN, text);
    return false;
}

void Service::count_asked(Client& client, std::uint64_t children, std::uint64_t bytes) {
    for (Usage* usage : {&client.usage, &users_[client.peer().uid], &all_}) {
        usage->asked_children += children;
        usage->asked_bytes += bytes;
    }
}

void Service::count_answered(Client& client, std::uint64_t children, std::uint64_t bytes) {
    for (Usage* usage : {&client.usage, &users_[client.peer().uid], &all_}) {
        usage->asked_children -= children;
        usage->asked_bytes -= bytes;
    }
}

void Service::lease(Client& client, const ServiceMessage& message) {
    stopping_point("daemon.lease-asked");
    std::optional<LeaseRequest> wanted = read_lease_request(message.body);
    if (!wanted) return lose_client(client.id(), "it sent a lease request that is none");
    if (is_stopping_)
        return refuse(client, message.id, Stage::launch, ESHUTDOWN, "the service is stopping");
    ServedTemplate* served = find_template(wanted->name);
    const bool is_automatic = find_automatic(wanted->name) != nullptr;
    if (!served && !is_automatic)
        return refuse(client, message.id, Stage::launch, ENOENT, explain_absence(wanted->name));
    if (!may_lease(client))
        return refuse(client, message.id, Stage::eligibility, EACCES,
                      "another user's client may only run the template's own command");
    if (!check_confinement(client, message, wanted->sight)) return;
    // What is started is made for the client that asks, which must not be less free than this
    // service.
    if (is_automatic) served = start_automatic(*wanted);
    if (!served)
        return refuse(client, message.id, Stage::launch, EAGAIN, explain_absence(wanted->name));
    if (!admit_request(client, *served, message.id, wanted->count, message.body.size())) return;
    count_asked(client, wanted->count, message.body.size());
    const std::string name = wanted->name;
    // Descriptors that were lacking before this was asked may be there now: spares are wanted
    // again.
    static_cast<void>(served->named.retry_spares());
    served->named.add({client.id(), message.id, std::move(*wanted), message.body.size()});
    attend(name);
}

void Service::run(Client& client, ServiceMessage& message) {
    FieldReader reader(message.body);
    const std::string name = reader.text();
    const std::string sight = reader.has_more() ? reader.text() : std::string();
    if (is_stopping_)
        return refuse(client, message.id, Stage::launch, ESHUTDOWN, "the service is stopping");
    ServedTemplate* served = find_template(name);
    if (!served || served->named.definition().command.empty())
        return refuse(client, message.id, Stage::launch, ENOENT,
                      fmt::format("the template {} has no command of its own", name));
    if (message.descriptors.size() != 3)
        return refuse(client, message.id, Stage::descriptors, EBADMSG,
                      "a command is run with three descriptors: input, output, error");
    // Another user's client has nothing that the command takes part in.
    if (may_lease(client) && !check_confinement(client, message, sight)) return;
    if (!admit_request(client, *served, message.id, 1, message.body.size())) return;
    NamedTemplate::Ask ask{client.id(), message.id, {}, message.body.size(), true};
    ask.wanted.name = name;
    ask.wanted.flags = kLeaseMayWait;
    ask.wanted.options = served->named.definition().images.options;
    if (const auto& environment = served->named.definition().images.environment)
        ask.wanted.environment = *environment;
    else
        for (char** variable = environ; variable && *variable; ++variable)
            ask.wanted.environment.emplace_back(*variable);
    ask.descriptors = {std::exchange(message.descriptors, {}), disposal_of(client.peer().uid)};
    count_asked(client, 1, ask.size);
    served->named.add(std::move(ask));
    attend(name);
}

void Service::signal_child(Client& client, const ServiceMessage& message) {
    const auto child = children_.find(message.id);
    const auto signal = static_cast<int>(FieldReader(message.body).number());
    if (child == children_.end() || child->second.client != client.id()) return;
    if (signal > 0 && signal <= SIGRTMAX) signal_pidfd(child->second.pidfd.get(), signal);
}

void Service::lose_client(std::uint64_t id, std::string_view why) {
    const auto found = clients_.find(id);
    if (found == clients_.end()) return;
    const Peer& peer = found->second.client.peer();
    if (!why.empty())
        log(LOG_NOTICE, {{}, peer.pid, 0, "protocol"},
            fmt::format("the connection to {} is closed: {}", peer.name, why));
    for (auto& [name, served] : templates_) served.named.drop(id);
    const Usage& usage = found->second.client.usage;
    count_answered(found->second.client, usage.asked_children, usage.asked_bytes);
    const Cgroups::Owner owner{id, peer.pid};
    let_live_what_is_left(found->second.client, owner);
    const std::shared_ptr<Disposal> disposal = disposal_of(peer.uid);
    Descriptor socket = found->second.client.hang_up();
    clients_.erase(found);
    disposal->close(std::move(socket));  // only now that nobody watches it
    end_children(id, SIGTERM);
    clear_cgroups(owner, false);
    note_idleness();
    say_status();
    leave_when_empty();
}

}  // namespace warmfork::service
