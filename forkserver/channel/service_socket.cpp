#include "channel/service_socket.hpp"

#include <sys/socket.h>

#include <algorithm>
#include <array>
#include <cstring>

#include "channel/message_socket.hpp"

namespace warmfork {

int send_service_message(int socket, ServiceKind kind, std::uint64_t id,
                         std::span<const std::byte> body, std::span<const int> descriptors,
                         int flags) {
    if (body.size() > kMaximumBodySize) return E2BIG;
    const ServiceHeader header{
        kServiceMagic, kServiceVersion, kind, id, static_cast<std::uint32_t>(body.size()), 0};
    std::vector<int> sent(descriptors.begin(), descriptors.end());
    Descriptor memfd;
    if (body.size() > kInlineBodySize) {
        memfd = make_sealed_memfd(body);
        if (!memfd) return errno;
        sent.insert(sent.begin(), memfd.get());
        body = {};
    }
    return send_message(socket, bytes_of(header), body, sent, flags);
}

int receive_service_message(int socket, int flags, ServiceMessage& ret_message) {
    std::array<std::byte, sizeof(ServiceHeader) + kInlineBodySize> buffer;
    std::array<int, kMaximumMessageDescriptors> numbers;
    ReceivedMessage received;
    ret_message = {};
    if (int error = receive_message(socket, buffer, numbers, flags, received)) return error;
    // The descriptors are taken also from what is no message: an empty one may carry some.
    ServiceMessage& message = ret_message;
    for (std::size_t i = 0; i < received.descriptor_count; ++i)
        message.descriptors.emplace_back(numbers[i]);
    if (received.size == 0) return ECONNRESET;
    ServiceHeader header;
    if (received.truncated || received.size < sizeof header ||
        received.descriptor_count > kMaximumServiceDescriptors)
        return EPROTO;
    std::memcpy(&header, buffer.data(), sizeof header);
    if (header.magic != kServiceMagic || header.body_size > kMaximumBodySize) return EPROTO;
    if (header.version != kServiceVersion) return EPROTONOSUPPORT;
    message.kind = header.kind;
    message.id = header.id;
    message.sender = received.sender;
    const bool is_inline = header.body_size <= kInlineBodySize;
    if (received.descriptors_truncated && !is_inline) return EMFILE;
    message.body.resize(header.body_size);
    if (is_inline) {
        if (received.size != sizeof header + header.body_size) return EPROTO;
        std::copy_n(buffer.begin() + sizeof header, header.body_size, message.body.begin());
    } else {
        std::size_t size = 0;
        if (message.descriptors.empty() ||
            read_sealed_memfd(message.descriptors.front().get(), message.body, size) ||
            size != message.body.size())
            return EPROTO;
        message.descriptors.erase(message.descriptors.begin());
    }
    return received.descriptors_truncated ? EMFILE : 0;
}

}  // namespace warmfork
