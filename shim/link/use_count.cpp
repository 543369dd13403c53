#include "link/use_count.hpp"

#include <fcntl.h>
#include <sys/mman.h>
#include <sys/stat.h>
#include <unistd.h>

#include <cerrno>
#include <climits>
#include <cstdio>

#include "link/service_place.hpp"

namespace warmfork::link {
namespace {

/// Finds the directory of all counts. Nothing is made where the service's own directory is not
/// there.
bool find_directory(char (&ret_path)[PATH_MAX]) {
    char socket[kSocketPathSize];
    if (!find_service_socket(socket)) return false;
    return std::snprintf(ret_path, sizeof ret_path, "%s.links", socket) > 0;
}

/// Opens a file of counts. Returns -1 where it is not there and, with O_CREAT, cannot be made.
int open_counts(const char* command, int flags) {
    char directory[PATH_MAX], path[PATH_MAX];
    if (!find_directory(directory)) return -1;
    const int size = std::snprintf(path, sizeof path, "%s/%s", directory, command);
    if (size < 0 || static_cast<std::size_t>(size) >= sizeof path) return -1;
    flags |= O_CLOEXEC | O_NOFOLLOW | O_NOCTTY | O_NONBLOCK;
    int file = ::open(path, flags, 0600);
    if (file < 0 && errno == ENOENT && (flags & O_CREAT) && ::mkdir(directory, 0700) == 0)
        file = ::open(path, flags, 0600);
    return file;
}

/// Fills a new file with counts of nothing. Returns false where it cannot be used: it is no such
/// file, or there is no room for it, and a page that a full disk cannot give would raise a signal
/// at its first use.
bool make_usable(int file) {
    struct stat status;
    if (::fstat(file, &status) < 0 || !S_ISREG(status.st_mode)) return false;
    if (status.st_size == sizeof(UseCounts)) return status.st_blocks > 0;
    const UseCounts none;
    return status.st_size == 0 && ::pwrite(file, &none, sizeof none, 0) == sizeof none;
}

}  // namespace

void count_use(const char* command, bool is_warm) {
    const int file = open_counts(command, O_RDWR | O_CREAT);
    if (file < 0) return;
    if (make_usable(file)) {
        void* const memory =
            ::mmap(nullptr, sizeof(UseCounts), PROT_READ | PROT_WRITE, MAP_SHARED, file, 0);
        if (memory != MAP_FAILED) {
            auto* const counts = static_cast<UseCounts*>(memory);
            __atomic_fetch_add(is_warm ? &counts->warm : &counts->cold, 1, __ATOMIC_RELAXED);
            ::munmap(memory, sizeof(UseCounts));
        }
    }
    ::close(file);
}

bool read_use_counts(const char* command, UseCounts& ret_counts) {
    const int file = open_counts(command, O_RDONLY);
    if (file < 0) return false;
    UseCounts counts;
    const bool is_whole = ::pread(file, &counts, sizeof counts, 0) == sizeof counts;
    ::close(file);
    if (is_whole) ret_counts = counts;
    return is_whole;
}

}  // namespace warmfork::link
