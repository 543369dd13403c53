#include "link/python_program.hpp"

#include <elf.h>
#include <fcntl.h>
#include <link.h>
#include <sys/stat.h>
#include <unistd.h>

#include <climits>
#include <cstdint>
#include <cstring>
#include <initializer_list>

#include "link/real_program.hpp"

namespace warmfork::link {
namespace {

/// Of a script the kernel reads no more than the first 256 bytes; the list of an executable's
/// segments follows its header.
constexpr std::size_t kStartSize = 1024;
constexpr std::size_t kLineSize = 256;

/// The first bytes of a file that may be executed with the caller's own rights; 0: it is none.
std::size_t read_start(const char* path, char (&ret_start)[kStartSize]) {
    const int file = ::open(path, O_RDONLY | O_CLOEXEC | O_NONBLOCK | O_NOCTTY);
    if (file < 0) return 0;
    struct stat status;
    ssize_t size = 0;
    if (::fstat(file, &status) == 0 && S_ISREG(status.st_mode) &&
        !(status.st_mode & (S_ISUID | S_ISGID)) && ::access(path, X_OK) == 0)
        size = ::pread(file, ret_start, sizeof ret_start, 0);
    ::close(file);
    return size > 0 ? static_cast<std::size_t>(size) : 0;
}

bool is_dynamic(const char* start, std::size_t size) {
    ElfW(Ehdr) header;
    if (size < sizeof header || std::memcmp(start, ELFMAG, SELFMAG) != 0) return false;
    std::memcpy(&header, start, sizeof header);
    for (std::size_t i = 0; i < header.e_phnum; ++i) {
        ElfW(Phdr) segment;
        const std::uint64_t at = header.e_phoff + i * sizeof segment;
        if (header.e_phentsize != sizeof segment || at > size || size - at < sizeof segment)
            return false;
        std::memcpy(&segment, start + at, sizeof segment);
        if (segment.p_type == PT_INTERP) return true;
    }
    return false;
}

bool is_interpreter(const char* path) {
    char start[kStartSize];
    return is_python_name(base_name(path)) && is_dynamic(start, read_start(path, start));
}

/// Takes the next word of a script's line; empty: there is none. The line ends with a zero.
char* take_word(char*& rest) {
    rest += std::strspn(rest, " \t");
    char* const word = rest;
    rest += std::strcspn(rest, " \t");
    if (*rest) *rest++ = '\0';
    return word;
}

/// `line`: what stands behind "#!". By its own path, or by env(1).
bool names_interpreter(char* line) {
    const char* const interpreter = take_word(line);
    if (std::strcmp(base_name(interpreter), "env") != 0)
        return *interpreter == '/' && is_interpreter(interpreter);
    const char* word = take_word(line);
    if (std::strcmp(word, "-S") == 0) word = take_word(line);
    return is_python_name(word);
}

}  // namespace

bool is_python_name(const char* name) {
    for (const char* known : {"python", "pypy"}) {
        const std::size_t size = std::strlen(known);
        if (std::strncmp(name, known, size) != 0) continue;
        return name[size + std::strspn(name + size, "0123456789.t")] == '\0';
    }
    return false;
}

bool is_python_program(const char* path) {
    if (is_python_name(base_name(path))) return is_interpreter(path);
    char start[kStartSize];
    const std::size_t size = read_start(path, start);
    if (size < 2 || std::memcmp(start, "#!", 2) != 0) return false;
    char* const end =
        static_cast<char*>(std::memchr(start, '\n', size < kLineSize ? size : kLineSize));
    if (!end) return false;
    *end = '\0';
    return std::strlen(start) == static_cast<std::size_t>(end - start) &&
           names_interpreter(start + 2);
}

}  // namespace warmfork::link
