#include "template/connection.hpp"

#include <fcntl.h>
#include <poll.h>
#include <signal.h>
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

/// A message can be received before its send has ended, and it is then that the kernel raises the
/// signal of the socket: one that is asked for in between would come for the hello. So the owner
/// rings once the send has ended. Returns 0, or ECONNRESET: the owner has gone.
int await_end_of_send(const Connection& connection) {
    // A forked copy of the owner may hold the other end of the socket when the owner has gone.
    pollfd polled[3] = {{connection.command_bell.get(), POLLIN, 0},
                        {connection.control.get(), 0, 0},
                        {connection.owner_pidfd.get(), POLLIN, 0}};
    while (::poll(polled, 3, -1) < 0)
        if (errno != EINTR) return errno;
    return polled[0].revents & POLLIN ? 0 : ECONNRESET;
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
    if (error || answer_error) return error ? error : answer_error;
    return await_end_of_send(ret_connection);
}

void end_with_owner_by_signal(int control) {
    ::fcntl(control, F_SETSIG, SIGKILL);
    ::fcntl(control, F_SETOWN, ::getpid());
    ::fcntl(control, F_SETFL, ::fcntl(control, F_GETFL) | O_ASYNC);
    // It may have ended just before.
    pollfd polled{control, 0, 0};
    if (::poll(&polled, 1, 0) > 0) ::_exit(0);
}

void stop_ending_by_signal(int control) {
    ::fcntl(control, F_SETFL, ::fcntl(control, F_GETFL) & ~O_ASYNC);
}

}  // namespace warmfork
