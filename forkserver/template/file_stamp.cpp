#include "template/file_stamp.hpp"

#include <fcntl.h>
#include <sys/stat.h>
#include <sys/sysmacros.h>

#include "protocol/files.hpp"

namespace warmfork {
namespace {

std::int64_t nanoseconds(const statx_timestamp& time) {
    return warmfork::nanoseconds(timespec{time.tv_sec, time.tv_nsec});
}

}  // namespace

std::optional<FileStamp> stamp_of(const std::string& path) {
    struct statx status;
    if (::statx(AT_FDCWD, path.c_str(), AT_STATX_FORCE_SYNC, STATX_BASIC_STATS, &status) < 0)
        return {};
    return FileStamp{::makedev(status.stx_dev_major, status.stx_dev_minor), status.stx_ino,
                     static_cast<std::int64_t>(status.stx_size), nanoseconds(status.stx_mtime),
                     nanoseconds(status.stx_ctime)};
}

}  // namespace warmfork
