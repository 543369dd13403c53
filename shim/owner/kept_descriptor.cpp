#include "owner/kept_descriptor.hpp"

#include <sys/resource.h>
#include <sys/vfs.h>

#include <algorithm>

#include "channel/open_file.hpp"

namespace warmfork {
namespace {

constexpr long kAnonymousInodes = 0x09041934;  // ANON_INODE_FS_MAGIC of linux/magic.h

// The twin lies this far above the first, where the limit allows it: a program that opens a file
// and duplicates it gets neighbours.
constexpr int kTwinDistance = 97;

constexpr rlim_t kFewNumbers = 256;

bool has_inode_of_its_own(int number) {
    struct statfs status;
    return ::fstatfs(number, &status) < 0 || status.f_type != kAnonymousInodes;
}

}  // namespace

int lowest_kept_number() {
    rlimit limit{};
    ::getrlimit(RLIMIT_NOFILE, &limit);
    // A template takes about 16. Where there are few, a quarter would leave none for its spares.
    const rlim_t lowest =
        limit.rlim_cur < kFewNumbers ? limit.rlim_cur / 2 : limit.rlim_cur / 4 * 3;
    return static_cast<int>(std::min<rlim_t>(768, lowest));
}

KeptDescriptor::KeptDescriptor(Descriptor descriptor) {
    if (!descriptor) return;
    descriptor = moved_up(std::move(descriptor), lowest_kept_number());
    struct stat status;
    if (::fstat(descriptor.get(), &status) < 0) return;
    device_ = status.st_dev;
    inode_ = status.st_ino;
    number_ = descriptor.release();
    if (has_inode_of_its_own(number_)) return;
    for (int lowest : {number_ + kTwinDistance, number_})
        if (twin_ < 0) twin_ = ::fcntl(number_, F_DUPFD_CLOEXEC, lowest);
}

KeptDescriptor::~KeptDescriptor() {
    if (!is_intact()) return;
    ::close(number_);
    if (twin_ >= 0) ::close(twin_);
}

bool KeptDescriptor::is_intact() const {
    if (number_ < 0) return false;
    if (twin_ < 0) return has_same_inode();
    return is_same_open_file(number_, twin_).value_or(false);
}

bool KeptDescriptor::has_same_inode() const {
    struct stat status;
    return ::fstat(number_, &status) == 0 && status.st_dev == device_ && status.st_ino == inode_;
}

}  // namespace warmfork
