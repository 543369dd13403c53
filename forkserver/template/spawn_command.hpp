// A command to fork children that is being carried out, with all that came with it.
#pragma once

#include <cstdint>
#include <span>
#include <string>
#include <vector>

#include "channel/descriptor.hpp"
#include "protocol/layout.hpp"
#include "protocol/messages.hpp"
#include "protocol/record.hpp"

namespace warmfork {

/// Owns the command's descriptors and its record, which it wipes at the end, so that no later child
/// finds a sibling's environment in its memory.
class SpawnCommand {
  public:
    /// `payload` is the frame's, and must stay for as long as the command.
    SpawnCommand(const FrameHeader& header, std::span<std::byte> payload);
    SpawnCommand(const SpawnCommand&) = delete;
    SpawnCommand& operator=(const SpawnCommand&) = delete;
    ~SpawnCommand();

    /// Takes the mailboxes and descriptors that were sent over `control` ahead of the frame, and
    /// the record, and checks all of them. Must be called once. Returns what is wrong with them, or
    /// an empty text.
    [[nodiscard]] std::string receive(int control);

    std::uint64_t id() const { return header_.id; }
    bool takes_stale_image() const { return header_.values[1] & kSpawnFromStaleImage; }
    Lifetime lifetime() const { return lifetime_; }
    std::span<std::byte> record() const { return record_; }
    /// Returns the descriptors that go to each child.
    std::span<const int> descriptors() const { return numbers_; }

    /// Returns the mailbox of the next child, which stays this command's.
    int mailbox() const { return mailboxes_[forked_].get(); }
    /// Says that the next child has been forked: its mailbox is closed here. Returns false where it
    /// was the last one.
    bool go_on();

    /// Adds the numbers of the descriptors that it holds.
    void list_descriptors(std::vector<int>& ret_numbers) const;

  private:
    [[nodiscard]] std::string receive_descriptors(int control,
                                                  std::vector<Descriptor>& ret_descriptors) const;
    [[nodiscard]] std::string read_record(int memfd);

    const FrameHeader header_;
    const std::span<std::byte> payload_;
    std::span<std::byte> mapped_;  ///< for a record that came in a memfd
    std::span<std::byte> record_;
    Lifetime lifetime_ = Lifetime::owner;
    std::vector<Descriptor> mailboxes_;
    std::vector<Descriptor> descriptors_;
    std::vector<int> numbers_;  ///< of `descriptors_`
    std::size_t forked_ = 0;
};

}  // namespace warmfork
