#include "template/serve.hpp"

#include <fmt/format.h>
#include <signal.h>
#include <sys/prctl.h>
#include <sys/socket.h>

#include <cstdio>
#include <cstdlib>
#include <cstring>
#include <memory>

#include "channel/message_socket.hpp"
#include "child/setup.hpp"
#include "template/template_server.hpp"

namespace warmfork {
namespace {

constexpr std::size_t kHelloSize = 64u << 10;

// The channel on which the owner has its hello already; -1: on none.
int announced_channel = -1;
// In a child: the template that it came from.
const TemplateServer* parent_template = nullptr;

ServeResult failed(int error_number, std::string text) {
    ServeResult result;
    result.end = ServeResult::End::failed;
    result.error = std::move(text);
    result.error_number = error_number;
    return result;
}

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

/// Receives the owner's hello and attaches what came with it. Returns 0 or errno.
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

/// Once on each channel.
int say_hello(int channel) {
    if (announced_channel == channel) return 0;
    const TemplateHello hello{kHelloMagic, kProtocolVersion, 0, ::getpid()};
    const int error = send_message(channel, bytes_of(hello), {}, {}, 0);
    if (!error) announced_channel = channel;
    return error;
}

}  // namespace

int announce_template(int channel) {
    const PreloadInterface* preload = find_preload();
    if (channel < 0 && preload) channel = preload->channel;
    return channel < 0 ? ENOTCONN : say_hello(channel);
}

bool is_launched_as_template() {
    const PreloadInterface* preload = find_preload();
    return preload && preload->channel >= 0;
}

ServeResult serve(Host& host) {
    const PreloadInterface* preload = find_preload();
    if (!preload || preload->channel < 0)
        return failed(ENOTCONN, "this program was not started as a warmfork template");
    // It has shown what it is.
    ::unsetenv(kLaunchVariable);
    return serve_channel(Descriptor(preload->take_channel()), *preload, host, {});
}

ServeResult serve_layer(Host& host, Descriptor channel) {
    const PreloadInterface* preload = find_preload();
    if (!preload || !parent_template)
        return failed(ENOTCONN, "this process is no child of a warmfork template");
    return serve_channel(std::move(channel), *preload, host, {parent_template, true});
}

ServeResult serve_channel(Descriptor control, const PreloadInterface& preload, Host& host,
                          const Origin& origin) {
    Connection connection;
    connection.control = std::move(control);
    const int error = receive_hello(connection);
    // The answer carries this side's version, so it goes out also where the versions differ.
    const int answer_error = say_hello(connection.control.get());
    // In a child the number is another channel's, or somebody else's.
    announced_channel = -1;
    if (error || answer_error)
        return failed(error ? error : answer_error,
                      fmt::format("cannot open the channel to the owner: {}",
                                  std::strerror(error ? error : answer_error)));

    end_with_owner_by_signal(connection.control.get());
    // One that is stopped when its owner ends goes on, and sees that. The kernel sends this
    // whenever the thread ends that the template is a child of, which does no harm.
    ::prctl(PR_SET_PDEATHSIG, SIGCONT, 0, 0, 0);
    std::fflush(nullptr);
    const std::uint64_t mask = signal_mask();
    set_signal_mask(kAllSignals);
    auto served = std::make_unique<TemplateServer>(std::move(connection), preload, host, origin);
    if (std::string obstacle = served->open_gate(); !obstacle.empty())
        return failed(EBUSY, std::move(obstacle));
    ServeResult result;
    parent_template = served.get();  // of the children, which need not write it
    if (auto command = served->run()) {
        static_cast<void>(served.release());  // never destroyed: see TemplateServer::run
        result.end = ServeResult::End::child;
        result.command = *command;
        return result;
    }
    parent_template = nullptr;
    set_signal_mask(mask);
    result.end = ServeResult::End::shut_down;
    return result;
}

}  // namespace warmfork
