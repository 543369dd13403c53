// Directories of /proc whose entries are numbers, listed where nothing may allocate, take a lock or
// go through a function that somebody else may have interposed: between the fork handlers of a
// template, and in a newborn child.
#pragma once

#include <dirent.h>
#include <fcntl.h>
#include <sys/syscall.h>
#include <unistd.h>

#include <array>
#include <cerrno>
#include <charconv>
#include <cstring>
#include <span>
#include <string_view>

namespace warmfork {

/// A path of PREFIX, NUMBER and SUFFIX, NUL-terminated.
class NumberedPath {
  public:
    NumberedPath(std::string_view prefix, int number, std::string_view suffix = {}) {
        char* end = prefix.copy(text_.data(), kMostPrefix) + text_.data();
        end = std::to_chars(end, end + kMostDigits, number).ptr;
        end[suffix.copy(end, kMostSuffix)] = '\0';
    }
    const char* get() const { return text_.data(); }

  private:
    static constexpr std::size_t kMostPrefix = 32, kMostDigits = 12, kMostSuffix = 16;
    std::array<char, kMostPrefix + kMostDigits + kMostSuffix + 1> text_;
};

/// Opens and reads a small file up to the first newline. It is empty, with errno set, on failure.
inline std::string_view read_line(const char* path, std::span<char> buffer) {
    const long file = ::syscall(SYS_openat, AT_FDCWD, path, O_RDONLY | O_CLOEXEC);
    if (file < 0) return {};
    const long size = ::syscall(SYS_read, file, buffer.data(), buffer.size());
    const int error = errno;
    ::syscall(SYS_close, file);
    errno = error;
    const std::string_view text(buffer.data(), size > 0 ? static_cast<std::size_t>(size) : 0);
    return text.substr(0, text.find('\n'));
}

/// Calls `visit` with each number. Returns 0 or errno: then not all have been visited. The
/// descriptor that the directory itself is read by is not visited.
template <typename Visit>
int visit_numbered_entries(const char* path, Visit visit) {
    const long directory =
        ::syscall(SYS_openat, AT_FDCWD, path, O_RDONLY | O_DIRECTORY | O_CLOEXEC);
    if (directory < 0) return errno;
    const bool lists_descriptors = std::string_view(path).ends_with("/fd");
    alignas(dirent64) std::array<char, 8192> buffer;
    long size;
    while ((size = ::syscall(SYS_getdents64, directory, buffer.data(), buffer.size())) > 0) {
        for (long at = 0; at < size;) {
            const auto* entry = reinterpret_cast<const dirent64*>(buffer.data() + at);
            at += entry->d_reclen;
            const char* end = entry->d_name + std::strlen(entry->d_name);
            int number;
            const auto parsed = std::from_chars(entry->d_name, end, number);
            if (parsed.ec == std::errc() && parsed.ptr == end &&
                !(lists_descriptors && number == directory))
                visit(number);
        }
    }
    const int error = size < 0 ? errno : 0;
    ::syscall(SYS_close, directory);
    return error;
}

}  // namespace warmfork
