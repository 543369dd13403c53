// Which file it was, and as of when.
#pragma once

#include <cstdint>
#include <optional>
#include <string>

namespace warmfork {

/// A file as it was when the image took it in. Times are in nanoseconds.
struct FileStamp {
    std::uint64_t device = 0, inode = 0;
    std::int64_t size = 0, modified = 0, changed = 0;
    bool operator==(const FileStamp&) const = default;
};

/// Returns the stamp of the file that `path` leads to now, or nothing where there is none. A
/// network file system asks its server, whatever it remembers.
[[nodiscard]] std::optional<FileStamp> stamp_of(const std::string& path);

}  // namespace warmfork
