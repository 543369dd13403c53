// How the service execs itself: what the next one has to know, and how it takes it.
#include <fcntl.h>
#include <fmt/format.h>
#include <systemd/sd-daemon.h>
#include <time.h>
#include <unistd.h>

#include <algorithm>
#include <set>
#include <stdexcept>

#include "channel/message_socket.hpp"
#include "channel/stopping_point.hpp"
#include "protocol/fields.hpp"
#include "service/log.hpp"
#include "service/service.hpp"

namespace warmfork::service {
namespace {

/// Raised when the bytes change. A newer service has to read what the one before it left, or the
/// statuses of all children are lost: then it keeps the old reader for as long as people upgrade.
constexpr std::uint64_t kHandoverVersion = 1;

// What others have sent and what takes longer to be closed stays open across exec.
constexpr std::chrono::milliseconds kDisposalPatience{500};

/// Writes numbers and texts, and remembers which descriptors are to stay open.
class HandoverWriter : public FieldWriter {
  public:
    HandoverWriter& descriptor(int number) {
        this->number(static_cast<std::uint64_t>(number));
        if (number >= 0) descriptors_.push_back(number);
        return *this;
    }
    const std::vector<int>& descriptors() const { return descriptors_; }

  private:
    std::vector<int> descriptors_;
};

Descriptor read_descriptor(FieldReader& reader) {
    const int number = static_cast<int>(reader.number());
    if (number >= 0) ::fcntl(number, F_SETFD, FD_CLOEXEC);
    return Descriptor(number);
}

std::vector<Descriptor> read_descriptors(FieldReader& reader) {
    std::vector<Descriptor> descriptors;
    for (std::uint64_t count = reader.number(); count > 0 && reader.is_whole(); --count)
        descriptors.push_back(read_descriptor(reader));
    return descriptors;
}

/// What a client has not been sent yet.
void read_messages(FieldReader& reader, Client& client) {
    for (std::uint64_t messages = reader.number(); messages > 0 && reader.is_whole(); --messages) {
        const auto kind = static_cast<ServiceKind>(reader.number());
        const std::uint64_t message_id = reader.number();
        const std::string body = reader.text();
        std::vector<Descriptor> descriptors = read_descriptors(reader);
        client.keep({kind,
                     message_id,
                     {std::as_bytes(std::span(body)).begin(), std::as_bytes(std::span(body)).end()},
                     std::move(descriptors)});
    }
}

NamedTemplate::Ask read_ask(FieldReader& reader, std::vector<Descriptor>& ret_descriptors) {
    NamedTemplate::Ask ask;
    ask.client = reader.number();
    ask.request = reader.number();
    reader.number(ask.size);
    ask.is_run = reader.number() != 0;
    const std::string body = reader.text();
    if (auto wanted = read_lease_request(std::as_bytes(std::span(body))))
        ask.wanted = std::move(*wanted);
    ret_descriptors = read_descriptors(reader);
    return ask;
}

std::string_view as_text(std::span<const std::byte> bytes) {
    return {reinterpret_cast<const char*>(bytes.data()), bytes.size()};
}

}  // namespace

std::vector<std::byte> Service::hand_over(std::vector<int>& ret_descriptors) {
    HandoverWriter writer;
    writer.number(kHandoverVersion);
    writer.number(generation_).number(last_client_).number(last_child_);
    writer.descriptor(listener_.socket.get()).descriptor(listener_.lock.get());
    writer.text(listener_.path);
    writer.descriptor(keeper_.get());
    writer.number(clients_.size());
    for (auto& [id, served] : clients_) {
        Client& client = served.client;
        client.flush();
        writer.number(id);
        writer.descriptor(client.socket());
        writer.number(client.peer().uid).number(static_cast<std::uint64_t>(client.peer().pid));
        writer.descriptor(client.peer().pidfd.get()).text(client.peer().name);
        writer.number(client.has_greeted).number(client.spawned);
        writer.number(client.waiting().size());
        for (const Client::Message& message : client.waiting()) {
            writer.number(static_cast<std::uint64_t>(message.kind)).number(message.id);
            writer.text(as_text(message.body)).number(message.descriptors.size());
            for (const Descriptor& descriptor : message.descriptors)
                writer.descriptor(descriptor.get());
        }
    }
    writer.number(children_.size());
    for (const auto& [id, child] : children_) {
        writer.number(id).number(static_cast<std::uint64_t>(child.pid));
        writer.descriptor(child.pidfd.get())
            .number(child.client)
            .number(child.is_detached)
            .number(child.is_used);
        writer.text(child.template_name);
        writer.descriptor(child.reply.get()).descriptor(child.mailbox.get()).number(child.request);
    }
    writer.number(templates_.size());
    for (const auto& [name, served] : templates_) {
        writer.text(name).number(served.named.asks().size());
        for (const NamedTemplate::Ask& ask : served.named.asks()) {
            writer.number(ask.client).number(ask.request).number(ask.size).number(ask.is_run);
            writer.text(as_text(write_body(ask.wanted))).number(ask.descriptors.get().size());
            for (const Descriptor& descriptor : ask.descriptors.get())
                writer.descriptor(descriptor.get());
        }
    }
    writer.number(unkept_.size());
    for (std::uint64_t id : unkept_) writer.number(id);
    writer.descriptor(sight_.number()).texts(sight_.retired());
    ret_descriptors = writer.descriptors();
    return writer.bytes();
}

void Service::read_clients(FieldReader& reader) {
    for (std::uint64_t clients = reader.number(); clients > 0 && reader.is_whole(); --clients) {
        const std::uint64_t id = reader.number();
        Descriptor socket = read_descriptor(reader);
        Peer peer;
        reader.number(peer.uid);
        reader.number(peer.pid);
        peer.pidfd = read_descriptor(reader);
        peer.name = reader.text();
        const auto [place, _] = clients_.try_emplace(id, id, std::move(socket), std::move(peer));
        Client& client = place->second.client;
        client.has_greeted = reader.number() != 0;
        client.spawned = reader.number();
        read_messages(reader, client);
    }
}

void Service::read_children(FieldReader& reader) {
    for (std::uint64_t children = reader.number(); children > 0 && reader.is_whole(); --children) {
        const std::uint64_t id = reader.number();
        ServedChild child;
        reader.number(child.pid);
        child.pidfd = read_descriptor(reader);
        child.client = reader.number();
        child.is_detached = reader.number() != 0;
        child.is_used = reader.number() != 0;
        child.template_name = reader.text();
        child.reply = read_descriptor(reader);
        child.mailbox = OwnedSocket(read_descriptor(reader));
        child.request = reader.number();
        children_.emplace(id, std::move(child));
    }
}

void Service::read_templates(FieldReader& reader) {
    for (std::uint64_t templates = reader.number(); templates > 0 && reader.is_whole();
         --templates) {
        const std::string name = reader.text();
        // It was in use, so it is warm again soon.
        ServedTemplate* served = find_template(name);
        if (served) static_cast<void>(served->named.start());
        for (std::uint64_t asks = reader.number(); asks > 0 && reader.is_whole(); --asks) {
            std::vector<Descriptor> descriptors;
            NamedTemplate::Ask ask = read_ask(reader, descriptors);
            const auto client = clients_.find(ask.client);
            const uid_t user =
                client == clients_.end() ? ::geteuid() : client->second.client.peer().uid;
            ask.descriptors = {std::move(descriptors), disposal_of(user)};
            if (client == clients_.end()) continue;
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

/// Clients and children are as if they had come to this one.
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
        // Those of clients that have gone are about to end, or detached, as only this user's are.
        const auto client = clients_.find(child.client);
        child.user = client == clients_.end() ? ::geteuid() : client->second.client.peer().uid;
        count_child(child, 1);
    }
}

void Service::part_with_orphans() {
    // Those whose client went at the very end of the service before this one.
    std::set<std::uint64_t> orphans;
    for (const auto& [id, child] : children_)
        if (!clients_.count(child.client)) orphans.insert(child.client);
    for (std::uint64_t client : orphans) end_children(client, SIGTERM);
    // With an error in the configuration nobody knows who may.
    std::vector<std::uint64_t> unwanted;
    for (const auto& [id, served] : clients_)
        if (is_reading_ && !may_connect(served.client.peer().uid)) unwanted.push_back(id);
    for (std::uint64_t id : unwanted) lose_client(id, "its user may not use this service any more");
}

void Service::take_over(std::span<const std::byte> left) {
    FieldReader reader(left);
    // Without its socket this one would serve nobody: the next does, which systemd or a client
    // starts.
    if (reader.number() != kHandoverVersion)
        throw std::runtime_error(
            "the service before this one was of another version: its clients have to connect "
            "again, and their children end with them");
    generation_ = reader.number() + 1;
    last_client_ = reader.number();
    last_child_ = reader.number();
    listener_.socket = read_descriptor(reader);
    listener_.lock = read_descriptor(reader);
    listener_.path = reader.text();
    keeper_ = read_descriptor(reader);
    read_clients(reader);
    read_children(reader);
    read_templates(reader);
    for (std::uint64_t unkept = reader.number(); unkept > 0 && reader.is_whole(); --unkept)
        unkept_.push_back(reader.number());
    // Under the number that clients know; what is told of it is behind all that was told before.
    if (reader.has_more()) {
        Descriptor file = read_descriptor(reader);
        sight_ = Sight(std::move(file), reader.texts());
    } else {
        // Of a version that had none.
        for (auto& [id, served] : clients_)
            if (served.client.has_greeted) welcome(served.client);
    }
    if (!reader.is_whole()) log(LOG_ERR, {}, "what the service before this one left is cut short");
    watch_taken_over();
    part_with_orphans();
    stopping_point("daemon.taken-over");
    log(LOG_INFO, {},
        fmt::format("goes on with {} clients and {} children", clients_.size(), children_.size()));
}

/// Execs this program with what is left for it. Returns only if that failed, with errno set.
void Service::exec_again() {
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
    ::sd_notifyf(0, "RELOADING=1\nMONOTONIC_USEC=%llu",
                 static_cast<unsigned long long>(now.tv_sec) * 1'000'000 +
                     static_cast<unsigned long long>(now.tv_nsec) / 1000);
    log(LOG_INFO, {}, "reloading");
    exec_again();
    log(LOG_ERR, {},
        fmt::format("cannot execute {} again, and goes on as it is: {}", options_.program,
                    std::strerror(errno)));
    for (auto& [name, asks] : std::exchange(unserved_, {})) {
        ServedTemplate* served = find_template(name);
        while (served && !asks.empty()) {
            served->named.add(std::move(asks.front()));
            asks.pop_front();
        }
        attend_soon(name);
    }
    ::sd_notify(0, "READY=1");
}

}  // namespace warmfork::service
