#include "template/connection.hpp"

#include <fcntl.h>
#include <sys/socket.h>
#include <unistd.h>

#include <array>
#include <cerrno>
#include <cstring>
#include <string_view>

#include "channel/message_socket.hpp"

namespace warmfork {
namespace {

constexpr std::size_t kHelloSize = 64u << 10;

// The channel on which the owner has had the hello already, or -1 where it is none.
int announced_channel = -1;

std::vector<std::string> split_strings(std::string_view text) {
    std::vector<std::string> strings;
    while (!text.empty()) {
        const std::size_t size = text.find('\0');
        strings.emplace_back(text.substr(0, size));
        if (size == std::string_view::npos) break;
        text.remove_prefix(size + 1);
    }
    return strings;
}

int receive_hello(Connection& connection) {
    std::vector<std::byte> buffer(kHelloSize);
    std::array<int, kHelloDescriptors + 1> numbers;
    ReceivedMessage received;
    if (int error = receive_message(connection.control.get(), buffer, numbers, 0, received))
        return error;
    if (received.descriptor_count < kHelloDescriptors || received.size < sizeof connection.hello)
        return EPROTO;
    const Descriptor memfd(numbers[0]);
    connection.command_bell = Descriptor(numbers[1]);
    connection.completion_bell = Descriptor(numbers[2]);
    connection.owner_pidfd = Descriptor(numbers[3]);
    connection.lifeline = Descriptor(numbers[4]);
    if (received.descriptor_count > kHelloDescriptors)
        connection.inotify = Descriptor(numbers[kHelloDescriptors]);
    std::memcpy(&connection.hello, buffer.data(), sizeof connection.hello);
    if (connection.hello.magic != kHelloMagic) return EPROTO;
    if (connection.hello.version != kProtocolVersion) return EPROTONOSUPPORT;
    connection.allowed =
        split_strings({reinterpret_cast<const char*>(buffer.data()) + sizeof connection.hello,
                       received.size - sizeof connection.hello});
    if (connection.allowed.empty()) return EPROTO;
    connection.keeper_program = connection.allowed.front();
    connection.allowed.erase(connection.allowed.begin());
    return Segment::attach(memfd, connection.segment);
}

}  // namespace

int say_hello(int channel) {
    if (announced_channel == channel) return 0;
    const TemplateHello hello{kHelloMagic, kProtocolVersion, 0, ::getpid()};
    const int error = send_message(channel, bytes_of(hello), {}, {}, 0);
    if (!error) announced_channel = channel;
    return error;
}

int open_connection(Descriptor control, Connection& ret_connection) {
    ret_connection.control = std::move(control);
    const int error = receive_hello(ret_connection);
    // The answer carries this side's version, so it goes out also where the versions differ.
    const int answer_error = say_hello(ret_connection.control.get());
    // In a child the number is another channel's, or somebody else's.
    announced_channel = -1;
    return error ? error : answer_error;
}

void outlive_lifeline(const Connection& connection) {
    ::fcntl(connection.lifeline.get(), F_SETFL, 0);
}

}  // namespace warmfork
