// Looks whether an image is up to date, as far as its owner can see without asking the template.
#pragma once

#include <atomic>
#include <cstdint>

#include "owner/channel_ends.hpp"

namespace warmfork {

/// It is thread safe, and nothing here waits.
class ImageWatch {
  public:
    enum class Freshness {
        fresh,    ///< nothing that the image came from has changed before this was asked
        unknown,  ///< the template has to look: it does so at a fork on command
        stale,
    };

    /// The ends stay the channel's, and must live as long as this object.
    explicit ImageWatch(const ChannelEnds& ends) : ends_(ends) {}

    [[nodiscard]] Freshness look();

    /// Returns how many changes of mounts have been seen here. The template has looked at all of
    /// them when it has forked for a command that was given after; then `mounts_checked` is told
    /// that number.
    [[nodiscard]] std::uint64_t mount_changes() const { return mount_changes_; }
    void mounts_checked(std::uint64_t changes);

  private:
    const ChannelEnds& ends_;
    std::atomic<std::uint64_t> mount_changes_{0}, mount_changes_checked_{0};
};

}  // namespace warmfork
