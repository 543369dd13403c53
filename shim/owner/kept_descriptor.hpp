// A descriptor that the shim keeps while the application runs, which may close numbers that it did
// not open and get them again for files of its own.
#pragma once

#include <sys/stat.h>

#include "channel/descriptor.hpp"

namespace warmfork {

/// Returns the lowest number for what the shim keeps: above those that programs count on to be
/// free, below the limit.
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
    /// Closes the file. Where it is kept twice and the application has closed one of the two, the
    /// other stays open, as nobody can tell whose it is.
    ~KeptDescriptor();

    /// Returns the number, or -1 where it has become another file. It takes one system call.
    int get() const { return is_intact() ? number_ : -1; }
    explicit operator bool() const { return is_intact(); }
    /// Returns the number, for a caller that has just asked.
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
