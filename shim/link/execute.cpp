#include "link/execute.hpp"

#include <alloca.h>
#include <sys/syscall.h>
#include <sys/uio.h>
#include <unistd.h>

#include <cerrno>
#include <cstdlib>
#include <cstring>
#include <iterator>

#include "link/python_program.hpp"
#include "link/real_program.hpp"

namespace warmfork::link {
namespace {

constexpr int kNotFound = 127;
constexpr int kNotExecutable = 126;

/// Executes without libc: where libwarmfork-exec.so is preloaded its execve would lead here again.
int replace(const char* path, char* const* arguments, char* const* environment) {
    ::syscall(SYS_execve, path, arguments, environment);
    return errno;
}

std::size_t count(char* const* arguments) {
    std::size_t size = 0;
    while (arguments[size]) ++size;
    return size;
}

}  // namespace

bool misleads(const char* path, const char* first_argument, const char* search_path) {
    if (!is_python_name(base_name(path))) return false;
    if (std::strchr(first_argument, '/')) return is_link_program(first_argument);
    // As the interpreter does: the first file of this name, or, where it is empty, of its own.
    if (!*first_argument) first_argument = "python3";
    for (const char* rest = search_path; rest;) {
        const char* const end = ::strchrnul(rest, ':');
        const auto size = static_cast<std::size_t>(end - rest);
        char candidate[PATH_MAX];
        if (size + 1 + std::strlen(first_argument) < sizeof candidate) {
            std::memcpy(candidate, rest, size);
            candidate[size] = '/';
            std::strcpy(candidate + size + 1, first_argument);
            if (::access(candidate, X_OK) == 0) return is_link_program(candidate);
        }
        rest = *end ? end + 1 : nullptr;
    }
    return false;
}

int execute(const char* path, char* const* arguments, char* const* environment) {
    const std::size_t size = count(arguments);
    auto** const given =
        static_cast<char**>(::alloca((size + 2) * sizeof(char*)));  // one more, and the end
    if (size > 0) std::memcpy(given, arguments, size * sizeof(char*));
    given[size] = nullptr;
    if (size > 0 && misleads(path, arguments[0], std::getenv("PATH")))
        given[0] = const_cast<char*>(path);
    const int error = replace(path, given, environment);
    if (error != ENOEXEC) return error;
    static char shell[] = "/bin/sh";
    const std::size_t further = size > 0 ? size - 1 : 0;
    std::memmove(given + 2, arguments + (size - further), further * sizeof(char*));
    given[0] = shell;
    given[1] = const_cast<char*>(path);
    given[2 + further] = nullptr;
    static_cast<void>(replace(shell, given, environment));
    return ENOEXEC;
}

int report_failure(const char* path, bool is_found, int error_number) {
    const char* text = ::strerrordesc_np(error_number);
    if (!is_found)
        text = "command not found";
    else if (error_number == ENOENT)
        text = "cannot execute: required file not found";
    const char* const parts[] = {"warmfork: ", path, ": ", text ? text : "cannot execute", "\n"};
    iovec pieces[std::size(parts)];
    for (std::size_t i = 0; i < std::size(parts); ++i)
        pieces[i] = {const_cast<char*>(parts[i]), std::strlen(parts[i])};
    static_cast<void>(!::writev(STDERR_FILENO, pieces, std::size(parts)));
    return is_found && error_number != ENOENT ? kNotExecutable : kNotFound;
}

}  // namespace warmfork::link
