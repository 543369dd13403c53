#include "template/spawn_command.hpp"

#include <fmt/format.h>
#include <sys/mman.h>
#include <sys/socket.h>

#include <algorithm>
#include <array>
#include <cstring>

#include "channel/message_socket.hpp"

namespace warmfork {

SpawnCommand::SpawnCommand(const FrameHeader& header, std::span<std::byte> payload)
    : header_(header), payload_(payload) {}

SpawnCommand::~SpawnCommand() {
    wipe(payload_);
    if (!mapped_.empty()) ::munmap(mapped_.data(), mapped_.size());
}

std::string SpawnCommand::receive(int control) {
    // Both are received, whatever is wrong with the first: what comes after them is the next
    // command's.
    std::string mailbox_error = receive_descriptors(control, mailboxes_);
    std::string error = receive_descriptors(control, descriptors_);
    if (!mailbox_error.empty()) return mailbox_error;
    if (!error.empty()) return error;
    const auto count =
        static_cast<std::size_t>(std::clamp<std::int64_t>(header_.values[0], 1, kMaximumBatch));
    if (mailboxes_.size() != count || descriptors_.size() != header_.descriptor_count)
        return "it has a wrong number of descriptors";
    record_ = payload_;
    if (header_.values[1] & kSpawnRecordInMemfd) {
        if (descriptors_.empty()) return "its memfd is missing";
        if (std::string read_error = read_record(descriptors_[0].get()); !read_error.empty())
            return read_error;
        descriptors_.erase(descriptors_.begin());
    }
    for (const Descriptor& descriptor : descriptors_) numbers_.push_back(descriptor.get());
    RecordView record{};
    if (const char* invalid = decode_record(record_, record)) return invalid;
    lifetime_ = record.header.lifetime;
    return {};
}

/// Receives one message of descriptors.
std::string SpawnCommand::receive_descriptors(int control,
                                              std::vector<Descriptor>& ret_descriptors) const {
    DescriptorMessage message{};
    ReceivedMessage received;
    do {
        // This belongs to an older command: the owner could not send all of it, and gave it up.
        ret_descriptors.clear();
        std::array<int, kMaximumMessageDescriptors> numbers;
        const int error = receive_message(control, std::as_writable_bytes(std::span(&message, 1)),
                                          numbers, MSG_DONTWAIT, received);
        if (error) return fmt::format("its descriptors did not come: {}", std::strerror(error));
        for (std::size_t i = 0; i < received.descriptor_count; ++i)
            ret_descriptors.emplace_back(numbers[i]);
    } while (received.size == sizeof message && message.spawn_id < header_.id);
    if (received.descriptors_truncated)
        return "descriptors got lost: the template is at its limit of open files";
    if (message.spawn_id != header_.id) return "its descriptors are those of another command";
    return {};
}

std::string SpawnCommand::read_record(int memfd) {
    void* memory = ::mmap(nullptr, kMaximumRecordSize, PROT_READ | PROT_WRITE,
                          MAP_PRIVATE | MAP_ANONYMOUS, -1, 0);
    if (memory == MAP_FAILED)
        return fmt::format("there is no memory for it: {}", std::strerror(errno));
    mapped_ = {static_cast<std::byte*>(memory), kMaximumRecordSize};
    std::size_t size = 0;
    if (int error = read_sealed_memfd(memfd, mapped_, size))
        return fmt::format("its memfd cannot be read: {}", std::strerror(error));
    record_ = mapped_.first(size);
    return {};
}

bool SpawnCommand::go_on() {
    mailboxes_[forked_].reset();
    return ++forked_ < mailboxes_.size();
}

void SpawnCommand::list_descriptors(std::vector<int>& ret_numbers) const {
    for (const auto* descriptors : {&descriptors_, &mailboxes_})
        for (const Descriptor& descriptor : *descriptors) ret_numbers.push_back(descriptor.get());
}

}  // namespace warmfork
