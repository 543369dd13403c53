// A descriptor that the shim keeps while the application runs, which may close numbers that it did
// not open and get them again for files of its own.
#pragma once

#include <sys/stat.h>

#include "channel/descriptor.hpp"

namespace warmfork {

/// The lowest number for what the shim keeps: above those that programs count on to be free, below
/// the limit.
[[nodiscard]] int lowest_kept_number();

/// Like Descriptor, but at a high number, and it remembers which file it was: where the number has
/// become another file it reads as -1, and that file is left alone.
///
/// Device and inode tell files apart, except for those that share the kernel's one anonymous inode
/// (eventfd, inotify, pidfd before Linux 6.9). Of these a second descriptor is kept elsewhere, and
/// both numbers must still be the same open file.
class KeptDescriptor {
  public:
    KeptDescriptor() = default;
    explicit KeptDescriptor(Descriptor descriptor);
    KeptDescriptor(KeptDescriptor&& other) noexcept { *this = std::move(other); }
    KeptDescriptor& operator=(KeptDescriptor&& other) noexcept {
        std::swap(number_, other.number_);
        std::swap(twin_, other.twin_);
        std::swap(device_, other.device_);
        std::swap(inode_, other.inode_);
        return *this;
    }
    /// Of a file that is kept twice the twin stays open where it cannot be told whose it is: where
    /// the application has closed one of the two.
    ~KeptDescriptor();

    /// One system call.
    int get() const { return is_intact() ? number_ : -1; }
    explicit operator bool() const { return is_intact(); }
    /// The number, for who has just asked.
    int unchecked() const { return number_; }

  private:
    [[nodiscard]] bool is_intact() const;
    [[nodiscard]] bool has_same_inode() const;

    int number_ = -1;
    int twin_ = -1;
    dev_t device_ = 0;
    ino_t inode_ = 0;
};

}  // namespace warmfork
