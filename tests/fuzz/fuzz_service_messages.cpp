// Messages between a service and its clients, from the socket to their bodies: the hello that comes
// first, those of clients, and those of a service that is not what it says it is.
#include <sys/socket.h>

#include <array>
#include <vector>

#include "channel/message_socket.hpp"
#include "channel/service_socket.hpp"
#include "fuzz_input.hpp"
#include "owner/owner_state.hpp"
#include "protocol/service_bodies.hpp"

using namespace warmfork;

namespace {

/// Bodies are read by what was written: the same again.
template <typename Body>
void write_again(const std::optional<Body>& body,
                 std::optional<Body> (*read)(std::span<const std::byte>)) {
    if (!body) return;
    const std::vector<std::byte> written = write_body(*body);
    const std::optional<Body> again = read(written);
    fuzz::require(again && write_body(*again) == written,
                  "a body that is written anew is the same");
}

std::optional<LinkedCommand> read_command_again(std::span<const std::byte> body) {
    FieldReader reader(body);
    return read_linked_command(reader);
}

void read_body(ServiceKind kind, std::span<const std::byte> body) {
    switch (kind) {
        case ServiceKind::lease: {
            const auto request = read_lease_request(body);
            if (request)
                fuzz::require(request->count >= 1 && request->count <= kMostLeases,
                              "a lease request asks for what can be leased");
            write_again(request, read_lease_request);
            break;
        }
        case ServiceKind::used:
            write_again(read_use_report(body), read_use_report);
            break;
        case ServiceKind::found:
            write_again(read_template_facts(body), read_template_facts);
            break;
        case ServiceKind::image:
            if (const auto image = read_shared_image(body)) {
                const OwnerState state = decode_owner_state(image->owner_state);
                static_cast<void>(find_incompatible_change(state, state));
                static_cast<void>(decode_owner_state(encode_owner_state(state)));
                write_again(image, read_shared_image);
            }
            break;
        case ServiceKind::leased:
            write_again(read_leased_child(body), read_leased_child);
            break;
        case ServiceKind::refused:
            write_again(read_refusal(body), read_refusal);
            break;
        case ServiceKind::exited:
            static_cast<void>(read_exit_report(body));
            break;
        case ServiceKind::manage: {
            FieldReader reader(body);
            static_cast<void>(reader.text());
            static_cast<void>(reader.text());
            if (reader.has_more()) write_again(read_linked_command(reader), read_command_again);
            break;
        }
        default: {
            // hello, find, run, signal, welcome, managed: a number or some texts.
            FieldReader reader(body);
            static_cast<void>(reader.number());
            static_cast<void>(reader.text());
            static_cast<void>(reader.texts());
        }
    }
}

}  // namespace

extern "C" int LLVMFuzzerTestOneInput(const std::uint8_t* data, std::size_t size) {
    fuzz::Input input(data, size);
    std::array<int, 2> numbers;
    if (::socketpair(AF_UNIX, SOCK_SEQPACKET | SOCK_CLOEXEC, 0, numbers.data()) < 0) return 0;
    const Descriptor sender(numbers[0]), receiver(numbers[1]);

    const auto shape = input.number<std::uint8_t>();
    // Most messages are well-formed outside, so that the bodies are reached.
    ServiceHeader header{kServiceMagic, kServiceVersion, ServiceKind{}, 1, 0, 0};
    header.kind = static_cast<ServiceKind>(input.number<std::uint8_t>() % 32);
    if (shape & 1) header.magic = input.number<std::uint32_t>();
    if (shape & 2) header.version = input.number<std::uint16_t>();
    const std::uint32_t claimed = shape & 4 ? input.number<std::uint32_t>() : 0;
    std::vector<int> sent;
    for (int i = 0; i < (shape >> 6); ++i) sent.push_back(sender.get());
    const std::span<const std::byte> body = input.rest();
    header.body_size = shape & 4 ? claimed : static_cast<std::uint32_t>(body.size());
    Descriptor memfd;
    if (shape & 8 && (memfd = make_sealed_memfd(body))) {
        sent.insert(sent.begin(), memfd.get());
        header.body_size = std::max<std::uint32_t>(header.body_size, kInlineBodySize + 1);
    }
    const std::span<const std::byte> inside = shape & 8 ? std::span<const std::byte>() : body;
    if (send_message(sender.get(), bytes_of(header), inside, sent, MSG_DONTWAIT)) return 0;

    ServiceMessage message;
    if (receive_service_message(receiver.get(), MSG_DONTWAIT, message) == 0) {
        fuzz::require(message.body.size() <= kMaximumBodySize, "a body is within its limit");
        fuzz::require(message.descriptors.size() <= kMaximumServiceDescriptors,
                      "a message has no more descriptors than it may have");
        read_body(message.kind, message.body);
    }
    // Also what is too large to travel within a message.
    read_body(header.kind, body);
    return 0;
}
