#include "owner/owned_sockets.hpp"

#include <pthread.h>
#include <sys/socket.h>

#include <map>
#include <mutex>
#include <set>

#include "owner/kept_descriptor.hpp"

namespace warmfork {

void close_replies_in_forked_copy();

namespace {

struct Registry {
    std::mutex mutex;
    std::map<int, std::uint64_t> cookies;  ///< by descriptor number
    std::set<ReplyPipe*> replies;          ///< of the calls in progress
};

Registry& registry() {
    // It is never destroyed: fork handlers and late destructors use it until the very end.
    static auto* instance = new Registry;
    return *instance;
}

void close_if_intact(int number, std::uint64_t cookie) {
    if (socket_cookie(number) == cookie) ::close(number);
}

void close_in_forked_copy() {
    for (const auto& [number, cookie] : registry().cookies) close_if_intact(number, cookie);
    registry().cookies.clear();
    close_replies_in_forked_copy();
    registry().mutex.unlock();
}

/// With the registry's mutex held.
void register_fork_handlers() {
    static const bool registered =
        (::pthread_atfork([] { registry().mutex.lock(); }, [] { registry().mutex.unlock(); },
                          close_in_forked_copy),
         true);
    static_cast<void>(registered);
}

}  // namespace

OwnedSocket::OwnedSocket(Descriptor socket) {
    const std::lock_guard lock(registry().mutex);
    adopt(std::move(socket));
}

OwnedSocket::OwnedSocket(OwnedSocket&& other) noexcept
    : number_(std::exchange(other.number_, -1)), cookie_(other.cookie_) {}

OwnedSocket& OwnedSocket::operator=(OwnedSocket&& other) noexcept {
    if (this != &other) {
        reset();
        number_ = std::exchange(other.number_, -1);
        cookie_ = other.cookie_;
    }
    return *this;
}

OwnedSocket::~OwnedSocket() {
    reset();
}

/// With the registry's mutex held.
void OwnedSocket::adopt(Descriptor socket) {
    register_fork_handlers();
    socket = moved_up(std::move(socket), lowest_kept_number());
    cookie_ = socket_cookie(socket.get());
    number_ = socket.release();
    registry().cookies[number_] = cookie_;
}

void OwnedSocket::reset() {
    if (number_ < 0) return;
    const std::lock_guard lock(registry().mutex);
    // In a forked copy the registry is empty, and the socket is closed already.
    const auto entry = registry().cookies.find(number_);
    if (entry != registry().cookies.end() && entry->second == cookie_) {
        registry().cookies.erase(entry);
        close_if_intact(number_, cookie_);
    }
    number_ = -1;
}

void close_replies_in_forked_copy() {
    for (ReplyPipe* reply : registry().replies)
        for (int& end : reply->ends_)
            if (end >= 0) ::close(std::exchange(end, -1));
    registry().replies.clear();
}

int ReplyPipe::open() {
    const std::lock_guard lock(registry().mutex);
    register_fork_handlers();
    if (::pipe2(ends_, O_CLOEXEC) < 0) return errno;
    registry().replies.insert(this);
    return 0;
}

void ReplyPipe::close_write_end() {
    const std::lock_guard lock(registry().mutex);
    if (ends_[1] >= 0) ::close(std::exchange(ends_[1], -1));
}

ReplyPipe::~ReplyPipe() {
    const std::lock_guard lock(registry().mutex);
    for (int end : ends_)
        if (end >= 0) ::close(end);
    registry().replies.erase(this);
}

int make_owned_pair(OwnedSocket& ret_one, OwnedSocket& ret_other) {
    OwnedSocket one, other;
    {
        const std::lock_guard lock(registry().mutex);
        Descriptor near, far;
        if (int error = make_message_pair(near, far)) return error;
        one.adopt(std::move(near));
        other.adopt(std::move(far));
    }
    ret_one = std::move(one);
    ret_other = std::move(other);
    return 0;
}

int receive_owned(int socket, std::span<std::byte> buffer, OwnedSocket& ret_socket,
                  ReceivedMessage& ret_message) {
    const std::lock_guard lock(registry().mutex);
    int number = -1;
    const int error =
        receive_message(socket, buffer, std::span(&number, 1), MSG_DONTWAIT, ret_message);
    if (error) return error;
    if (ret_message.descriptor_count == 1) {
        // Where no high number is free the application's own are not taken instead.
        Descriptor low(number);
        number = ::fcntl(low.get(), F_DUPFD_CLOEXEC, lowest_kept_number());
        if (number < 0) return 0;
        OwnedSocket received;
        received.adopt(Descriptor(number));
        // Assigning would reset the old socket, which takes the mutex.
        ret_socket.number_ = std::exchange(received.number_, -1);
        ret_socket.cookie_ = received.cookie_;
    }
    return 0;
}

}  // namespace warmfork
