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

/// How much of a file is read. Of a script the kernel reads no more than the first 256 bytes; the
/// list of an executable's segments follows its header.
constexpr std::size_t kStartSize = 1024;
constexpr std::size_t kLineSize = 256;

/// Reads the first bytes of a file that may be executed with the caller's own rights. Returns 0
/// where it is none.
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

/// Takes the next word of a script's line; empty where there is none. The line ends with a zero.
char* take_word(char*& rest) {
    rest += std::strspn(rest, " \t");
    char* const word = rest;
    rest += std::strcspn(rest, " \t");
    if (*rest) *rest++ = '\0';
    return word;
}

/// Does the `line` behind "#!" name an interpreter, by its own path or by env(1)?
bool names_interpreter(char* line) {
    const char* const interpreter = take_word(line);
    if (std::strcmp(base_name(interpreter), "env") != 0)
        return *interpreter == '/' && is_interpreter(interpreter);
    const char* word = take_word(line);
    if (std::strcmp(word, "-S") == 0) word = take_word(line);
    return is_python_name(word);
}

/// Reads the line of a script without its "#!"; empty where it is none.
char* read_line(const char* path, char (&ret_line)[sizeof PythonStart::line]) {
    char start[kStartSize];
    const std::size_t size = read_start(path, start);
    *ret_line = '\0';
    if (size < 2 || std::memcmp(start, "#!", 2) != 0) return ret_line;
    const void* const end = std::memchr(start, '\n', size < kLineSize ? size : kLineSize);
    if (!end) return ret_line;
    const auto length = static_cast<std::size_t>(static_cast<const char*>(end) - start) - 2;
    if (std::memchr(start + 2, '\0', length)) return ret_line;
    std::memcpy(ret_line, start + 2, length);
    ret_line[length] = '\0';
    return ret_line;
}

/// Finds what env(1) comes to in the end, past links.
bool find_in_path(const char* name, const char* search_path, char (&ret_path)[PATH_MAX]) {
    if (!is_python_name(name)) return false;  // a path among others
    ProgramSearch search(name, search_path);
    if (!search.next()) return false;
    std::strcpy(ret_path, search.path());
    return true;
}

/// Puts the words that env(1) gives to the interpreter into `ret_start`, and returns the
/// interpreter's name, or null where it is not as simple as that.
const char* take_words_of_env(char* rest, PythonStart& ret_start) {
    const char* name = take_word(rest);
    const bool is_split = std::strcmp(name, "-S") == 0;
    if (is_split) name = take_word(rest);
    while (*(rest += std::strspn(rest, " \t"))) {
        const char* const word = take_word(rest);
        // Without -S all of it would be one name; with it, these characters mean something.
        if (!is_split || std::strpbrk(word, "\\'\"$#") ||
            ret_start.word_count == PythonStart::kMostWords)
            return nullptr;
        ret_start.words[ret_start.word_count++] = word;
    }
    return name;
}

/// Takes what the kernel passes on of a script's line, if anything: all of it, as one word.
void take_one_word(char* rest, PythonStart& ret_start) {
    rest += std::strspn(rest, " \t");
    std::size_t size = std::strlen(rest);
    while (size > 0 && (rest[size - 1] == ' ' || rest[size - 1] == '\t')) --size;
    rest[size] = '\0';
    if (size > 0) ret_start.words[ret_start.word_count++] = rest;
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
    char line[sizeof PythonStart::line];
    return names_interpreter(read_line(path, line));
}

bool find_python_start(const char* path, const char* search_path, PythonStart& ret_start) {
    ret_start.word_count = 0;
    ret_start.is_script = !is_python_name(base_name(path)) || !is_interpreter(path);
    if (!ret_start.is_script) {
        if (std::strlen(path) >= sizeof ret_start.interpreter) return false;
        std::strcpy(ret_start.interpreter, path);
        return true;
    }
    char* rest = read_line(path, ret_start.line);
    const char* const named = take_word(rest);
    if (std::strcmp(base_name(named), "env") == 0) {
        const char* const name = take_words_of_env(rest, ret_start);
        return name && find_in_path(name, search_path, ret_start.interpreter) &&
               is_interpreter(ret_start.interpreter);
    }
    take_one_word(rest, ret_start);
    if (*named != '/' || std::strlen(named) >= sizeof ret_start.interpreter) return false;
    std::strcpy(ret_start.interpreter, named);
    return is_interpreter(named);
}

}  // namespace warmfork::link
