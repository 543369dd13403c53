// libwarmfork-exec.so is for LD_PRELOAD. An interpreter of Python, or a script for one, that a
// program starts by its path, it starts by warmfork-exec, which does what it does for a link. All
// else, and whatever is in doubt, is left to libc. This runs between fork or vfork and exec: it
// allocates nothing, takes no lock, and changes no memory but its own stack.
#include <alloca.h>
#include <dlfcn.h>
#include <spawn.h>
#include <sys/syscall.h>
#include <unistd.h>

#include <cerrno>
#include <climits>
#include <cstring>
#include <iterator>

#include "link/python_program.hpp"

namespace {

using warmfork::link::is_python_program;

// The most for which there is an array on the stack: there are callers with small stacks.
constexpr std::size_t kMostArguments = 2048;

using PosixSpawn = int(pid_t*, const char*, const posix_spawn_file_actions_t*,
                       const posix_spawnattr_t*, char* const*, char* const*);

PosixSpawn *next_spawn, *next_spawnp;

/// warmfork-exec, which lies beside this library. It is empty where that is not known, and nothing
/// is changed then.
char program[PATH_MAX];

[[gnu::constructor]] void find_program() {
    next_spawn = reinterpret_cast<PosixSpawn*>(::dlsym(RTLD_NEXT, "posix_spawn"));
    next_spawnp = reinterpret_cast<PosixSpawn*>(::dlsym(RTLD_NEXT, "posix_spawnp"));
    Dl_info info;
    if (::dladdr(reinterpret_cast<void*>(&find_program), &info) == 0 || !info.dli_fname ||
        info.dli_fname[0] != '/')
        return;
    constexpr char kName[] = "warmfork-exec";
    const auto folder =
        static_cast<std::size_t>(std::strrchr(info.dli_fname, '/') + 1 - info.dli_fname);
    if (folder + sizeof kName > sizeof program) return;
    std::memcpy(program + 1, info.dli_fname + 1, folder - 1);
    std::memcpy(program + folder, kName, sizeof kName);
    program[0] = '/';  // last: a thread may look at it already
}

/// Counts the arguments of a command line that warmfork-exec is to have. Returns 0 where it is not
/// for that.
std::size_t count_for_program(const char* path, char* const* arguments) {
    if (!program[0] || !path || path[0] != '/' || !arguments || !arguments[0]) return 0;
    std::size_t count = 0;
    while (arguments[count])
        if (++count > kMostArguments) return 0;
    const int error = errno;
    const bool is_meant = is_python_program(path);
    errno = error;
    return is_meant ? count : 0;
}

/// Puts warmfork-exec and the path in front. `ret_given` has room for two more than `arguments`,
/// and the end.
void put_in_front(const char* path, char* const* arguments, std::size_t count, char** ret_given) {
    ret_given[0] = program;
    ret_given[1] = const_cast<char*>(path);
    std::memcpy(ret_given + 2, arguments, (count + 1) * sizeof(char*));
}

int execute(const char* path, char* const* arguments, char* const* environment) {
    if (const std::size_t count = count_for_program(path, arguments)) {
        auto** const given = static_cast<char**>(::alloca((count + 3) * sizeof(char*)));
        put_in_front(path, arguments, count, given);
        ::syscall(SYS_execve, program, given, environment);
    }
    return static_cast<int>(::syscall(SYS_execve, path, arguments, environment));
}

int spawn(PosixSpawn* next, pid_t* ret_pid, const char* path,
          const posix_spawn_file_actions_t* actions, const posix_spawnattr_t* attributes,
          char* const* arguments, char* const* environment) {
    if (!next) return ENOSYS;
    if (const std::size_t count = count_for_program(path, arguments)) {
        auto** const given = static_cast<char**>(::alloca((count + 3) * sizeof(char*)));
        put_in_front(path, arguments, count, given);
        if (next(ret_pid, program, actions, attributes, given, environment) == 0) return 0;
    }
    return next(ret_pid, path, actions, attributes, arguments, environment);
}

}  // namespace

#define EXPORTED extern "C" [[gnu::visibility("default")]]

EXPORTED int execve(const char* path, char* const* arguments, char* const* environment) noexcept {
    return execute(path, arguments, environment);
}

EXPORTED int execv(const char* path, char* const* arguments) noexcept {
    return execute(path, arguments, environ);
}

EXPORTED int posix_spawn(pid_t* ret_pid, const char* path,
                         const posix_spawn_file_actions_t* actions,
                         const posix_spawnattr_t* attributes, char* const* arguments,
                         char* const* environment) {
    return spawn(next_spawn, ret_pid, path, actions, attributes, arguments, environment);
}

EXPORTED int posix_spawnp(pid_t* ret_pid, const char* path,
                          const posix_spawn_file_actions_t* actions,
                          const posix_spawnattr_t* attributes, char* const* arguments,
                          char* const* environment) {
    return spawn(next_spawnp, ret_pid, path, actions, attributes, arguments, environment);
}
