// Reads what a directory holds, past every stream of libc.
#pragma once

#include <dirent.h>
#include <unistd.h>

#include <cstddef>
#include <cstring>

#include "protocol/files.hpp"

namespace warmfork {

/// Takes the digest of an open directory's listing, and leaves it at the place where it was.
/// Returns false with errno set where it cannot be read. Allocates nothing.
[[nodiscard]] inline bool read_listing(int directory, ListingDigest& ret_digest) {
    const off_t place = ::lseek(directory, 0, SEEK_CUR);
    if (place < 0 || ::lseek(directory, 0, SEEK_SET) < 0) return false;
    ListingDigest digest;
    alignas(dirent64) char buffer[8192];
    ssize_t size;
    while ((size = ::getdents64(directory, buffer, sizeof buffer)) > 0) {
        for (const char* entry = buffer; entry < buffer + size;) {
            decltype(dirent64::d_reclen) length;
            std::memcpy(&length, entry + offsetof(dirent64, d_reclen), sizeof length);
            digest.add(entry + offsetof(dirent64, d_name));
            entry += length;
        }
    }
    if (::lseek(directory, place, SEEK_SET) < 0 || size < 0) return false;
    ret_digest = digest;
    return true;
}

}  // namespace warmfork
