// One client of the service: its connection, and what is accounted to it. It is told when there is
// something to read or room to write, and never waits.
#pragma once

#include <sys/socket.h>

#include <chrono>
#include <deque>
#include <optional>
#include <set>

#include "channel/service_socket.hpp"
#include "service/peer.hpp"

namespace warmfork::service {

/// What is accounted to a client, to its user, or to all of them.
struct Usage {
    using Clock = std::chrono::steady_clock;

    std::uint64_t children = 0;        ///< alive, leased spares included
    std::uint64_t asked_children = 0;  ///< by requests that wait
    std::uint64_t asked_bytes = 0;     ///< of requests that wait

    /// Counts spawns. Returns false, and counts none, where there have been more than `per_second`
    /// in the last second, which may have come all at once. What is asked for beyond that is taken
    /// off what may come next.
    [[nodiscard]] bool admit_spawns(std::uint64_t count, std::uint32_t per_second,
                                    Clock::time_point now);

  private:
    std::optional<double> tokens_;  ///< empty: none have been counted yet
    Clock::time_point counted_at_{};
};

class Client {
  public:
    /// How many messages may wait for a client that does not read, before nothing is read from it
    /// either.
    static constexpr std::size_t kMostWaiting = 256;

    Client(std::uint64_t id, Descriptor socket, Peer peer)
        : id_(id), socket_(std::move(socket)), peer_(std::move(peer)) {}

    std::uint64_t id() const { return id_; }
    int socket() const { return socket_.get(); }
    /// Hangs up, and returns the socket without closing it: what waits in it to be read may block
    /// close(2).
    [[nodiscard]] Descriptor hang_up() {
        ::shutdown(socket_.get(), SHUT_RDWR);
        is_broken_ = true;
        return std::move(socket_);
    }
    const Peer& peer() const { return peer_; }

    /// Sends a message, or keeps it until there is room. The descriptors stay the caller's.
    void send(ServiceKind kind, std::uint64_t id, std::span<const std::byte> body,
              std::span<const int> descriptors = {});
    /// Sends what there is room for.
    void flush();
    bool waits_for_room() const { return !waiting_.empty(); }
    /// Does it not read what it is told? Then nothing new is taken from it.
    bool is_clogged() const { return waiting_.size() >= kMostWaiting; }
    /// Can the connection not be written to any more?
    bool is_broken() const { return is_broken_; }

    /// Returns 0 or errno, as receive_service_message does.
    [[nodiscard]] int receive(ServiceMessage& ret_message) {
        return receive_service_message(socket_.get(), MSG_DONTWAIT, ret_message);
    }

    struct Message {
        ServiceKind kind;
        std::uint64_t id;
        std::vector<std::byte> body;
        std::vector<Descriptor> descriptors;
    };
    /// Returns what it has not been told yet, in order.
    const std::deque<Message>& waiting() const { return waiting_; }
    void queue(Message message) { waiting_.push_back(std::move(message)); }

    bool has_greeted = false;
    Usage usage;
    std::uint64_t spawned = 0;       ///< since it is here
    std::set<std::uint64_t> images;  ///< that it knows, by serial

  private:
    void give_up();

    std::uint64_t id_;
    Descriptor socket_;
    Peer peer_;
    std::deque<Message> waiting_;
    bool is_broken_ = false;
};

}  // namespace warmfork::service
