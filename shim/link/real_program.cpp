#include "link/real_program.hpp"

#include <elf.h>
#include <fcntl.h>
#include <sys/stat.h>
#include <unistd.h>

#include <cerrno>
#include <cstring>

#include "link/mark.hpp"

namespace warmfork::link {
namespace {

enum class Kind { none, forbidden, executable };

/// Returns what kind of file it is. One that comes or goes meanwhile is none: it has not been
/// forbidden.
Kind kind_of(const char* path) {
    struct stat status;
    if (::stat(path, &status) < 0 || !S_ISREG(status.st_mode)) return Kind::none;
    if (::access(path, X_OK) == 0) return Kind::executable;
    return errno == EACCES ? Kind::forbidden : Kind::none;
}

/// Joins them into a path. Returns false where it does not fit.
bool join(const char* directory, std::size_t size, const char* name, char (&ret_path)[PATH_MAX]) {
    const std::size_t name_size = std::strlen(name);
    if (size == 0) {  // an empty entry of PATH
        directory = ".";
        size = 1;
    }
    if (size + 1 + name_size >= sizeof ret_path) return false;
    std::memcpy(ret_path, directory, size);
    ret_path[size] = '/';
    std::memcpy(ret_path + size + 1, name, name_size + 1);
    return true;
}

}  // namespace

const char* base_name(const char* path) {
    const char* slash = std::strrchr(path, '/');
    return slash ? slash + 1 : path;
}

bool is_link_program(const char* path) {
    const int file = ::open(path, O_RDONLY | O_CLOEXEC | O_NONBLOCK | O_NOCTTY);
    if (file < 0) return false;
    char start[kMarkWithin];
    const ssize_t size = ::pread(file, start, sizeof start, 0);
    ::close(file);
    if (size < SELFMAG || std::memcmp(start, ELFMAG, SELFMAG) != 0) return false;
    return ::memmem(start, static_cast<std::size_t>(size), kMark, sizeof kMark - 1) != nullptr;
}

ProgramSearch::ProgramSearch(const char* name, const char* path)
    : name_(name), rest_(path ? path : kDefaultPath), candidate_(), forbidden_() {
    const char* const whole = rest_;
    while (next_candidate())
        if (kind_of(candidate_) == Kind::executable && is_link_program(candidate_)) return;
    rest_ = whole;  // it was called by its path
}

/// Goes on to the next entry of PATH, whatever lies there.
bool ProgramSearch::next_candidate() {
    while (rest_) {
        const char* const directory = rest_;
        const char* const end = ::strchrnul(directory, ':');
        rest_ = *end ? end + 1 : nullptr;
        if (join(directory, static_cast<std::size_t>(end - directory), name_, candidate_))
            return true;
    }
    return false;
}

bool ProgramSearch::next() {
    while (next_candidate()) {
        const Kind kind = kind_of(candidate_);
        if (kind == Kind::executable && !is_link_program(candidate_)) return true;
        if (kind == Kind::forbidden && !*forbidden_)
            std::memcpy(forbidden_, candidate_, sizeof forbidden_);
    }
    return false;
}

}  // namespace warmfork::link
