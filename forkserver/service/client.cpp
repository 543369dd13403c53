#include "service/client.hpp"

#include <fcntl.h>

#include <algorithm>

namespace warmfork::service {

void Client::send(ServiceKind kind, std::uint64_t id, std::span<const std::byte> body,
                  std::span<const int> descriptors) {
    if (is_broken_) return;
    if (waiting_.empty()) {
        const int error =
            send_service_message(socket_.get(), kind, id, body, descriptors, MSG_DONTWAIT);
        if (error == 0) return;
        // Too many descriptors in flight pass as well: whoever they are sent to reads them some
        // time.
        if (error != EAGAIN && error != ETOOMANYREFS) return give_up();
    }
    Message message{kind, id, {body.begin(), body.end()}, {}};
    for (int number : descriptors) {
        message.descriptors.emplace_back(::fcntl(number, F_DUPFD_CLOEXEC, 0));
        if (!message.descriptors.back()) return give_up();
    }
    waiting_.push_back(std::move(message));
}

/// Gives the connection up. The end of file tells the client, and whoever watches this end.
void Client::give_up() {
    is_broken_ = true;
    ::shutdown(socket_.get(), SHUT_RDWR);
}

void Client::flush() {
    for (; !waiting_.empty() && !is_broken_; waiting_.pop_front()) {
        const Message& message = waiting_.front();
        std::vector<int> numbers;
        for (const Descriptor& descriptor : message.descriptors)
            numbers.push_back(descriptor.get());
        const int error = send_service_message(socket_.get(), message.kind, message.id,
                                               message.body, numbers, MSG_DONTWAIT);
        if (error == EAGAIN || error == ETOOMANYREFS) return;
        if (error) return give_up();
    }
}

bool Usage::admit_spawns(std::uint64_t count, std::uint32_t per_second, Clock::time_point now) {
    const double most = per_second;
    const std::chrono::duration<double> passed = now - counted_at_;
    tokens_ = std::min(most, tokens_.value_or(most) + passed.count() * most);
    counted_at_ = now;
    if (*tokens_ < 1) return false;
    *tokens_ -= static_cast<double>(count);
    return true;
}

}  // namespace warmfork::service
