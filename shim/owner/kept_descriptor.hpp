// A descriptor that the shim keeps while the application runs, which may close numbers that it did
// not open and get them again for files of its own.
#pragma once

#include <sys/stat.h>

#include "channel/descriptor.hpp"

namespace warmfork {

/// Like Descriptor, but it remembers which file it was: where the number has become another file it
/// reads as -1, and that file is left alone.
class KeptDescriptor {
  public:
    KeptDescriptor() = default;
    explicit KeptDescriptor(Descriptor descriptor) : number_(descriptor.release()) {
        struct stat status;
        if (number_ < 0 || ::fstat(number_, &status) < 0) return;
        device_ = status.st_dev;
        inode_ = status.st_ino;
    }
    KeptDescriptor(KeptDescriptor&& other) noexcept { *this = std::move(other); }
    KeptDescriptor& operator=(KeptDescriptor&& other) noexcept {
        std::swap(number_, other.number_);
        std::swap(device_, other.device_);
        std::swap(inode_, other.inode_);
        return *this;
    }
    ~KeptDescriptor() {
        if (const int number = get(); number >= 0) ::close(number);
    }

    int get() const {
        struct stat status;
        const bool is_intact = number_ >= 0 && ::fstat(number_, &status) == 0 &&
                               status.st_dev == device_ && status.st_ino == inode_;
        return is_intact ? number_ : -1;
    }
    explicit operator bool() const { return get() >= 0; }
    /// The number, for who has just asked.
    int unchecked() const { return number_; }

  private:
    int number_ = -1;
    dev_t device_ = 0;
    ino_t inode_ = 0;
};

}  // namespace warmfork
