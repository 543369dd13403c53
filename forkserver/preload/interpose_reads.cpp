// The calls of libc by which a program reads its environment and opens its files, passed on and
// recorded. The recorder does not see what libc does without these calls: see the README.
#include <dirent.h>
#include <dlfcn.h>
#include <fcntl.h>
#include <sys/stat.h>

#include <cerrno>
#include <cstdarg>
#include <cstdio>
#include <cstring>

#include "channel/descriptor.hpp"
#include "preload/recorder.hpp"

namespace recorder = warmfork::recorder;

namespace {

template <typename Function>
Function next(const char* name) {
    return reinterpret_cast<Function>(::dlsym(RTLD_NEXT, name));
}

bool is_read_only(int flags) {
    return (flags & (O_ACCMODE | O_PATH | O_DIRECTORY)) == O_RDONLY;
}

bool is_to_be_written(int flags) {
    return !(flags & (O_PATH | O_DIRECTORY)) &&
           ((flags & O_ACCMODE) != O_RDONLY || (flags & (O_CREAT | O_TRUNC)));
}

/// Notes a file that has been opened; of one that is not only read it is enough to know whether it
/// gives random bytes.
void note_open_file(int directory, const char* path, int descriptor, bool is_read,
                    const void* caller) {
    static int (*real)(int, struct stat*);
    if (!real) real = next<int (*)(int, struct stat*)>("fstat");
    struct stat status;
    if (!recorder::is_recording() || real(descriptor, &status) < 0) return;
    recorder::note_opened(directory, path, status, caller);
    if (is_read) recorder::note_file(directory, path, &status);
}

void note_absent_file(int directory, const char* path) {
    if (path && path[0] && errno == ENOENT && recorder::is_recording())
        recorder::note_file(directory, path, nullptr);
}

/// Whether it could be opened may depend on what is there already.
void note_written_file(int directory, const char* path, bool is_open) {
    if ((is_open || errno == ENOENT || errno == EEXIST) && recorder::is_recording())
        recorder::note_made(directory, path);
}

int noted(int directory, const char* path, int flags, int descriptor, const void* caller) {
    if (is_to_be_written(flags)) note_written_file(directory, path, descriptor >= 0);
    if (descriptor >= 0)
        note_open_file(directory, path, descriptor, is_read_only(flags), caller);
    else if (is_read_only(flags))
        note_absent_file(directory, path);
    return descriptor;
}

FILE* noted(const char* path, const char* mode, FILE* file, const void* caller) {
    const bool is_read = mode[0] == 'r' && !std::strchr(mode, '+');
    if (!is_read) note_written_file(AT_FDCWD, path, file);
    if (file)
        note_open_file(AT_FDCWD, path, ::fileno(file), is_read, caller);
    else if (is_read)
        note_absent_file(AT_FDCWD, path);
    return file;
}

int noted(int directory, const char* path, const struct stat* status, int result) {
    if (result < 0)
        note_absent_file(directory, path);
    else if (path && path[0] && recorder::is_recording())
        recorder::note_file(directory, path, status);
    return result;
}

int noted_access(int directory, const char* path, int mode, int result) {
    if (result < 0 && errno == ENOENT) note_absent_file(directory, path);
    // A file that may not be executed yet counts as well. Whoever asks whether it may be read or
    // written goes on to do that, or does not care what is in it.
    const bool is_there = result == 0 || errno == EACCES;
    if (!(mode & X_OK) || !is_there || !path || !path[0] || !recorder::is_recording())
        return result;
    static int (*real)(int, const char*, struct stat*, int);
    if (!real) real = next<int (*)(int, const char*, struct stat*, int)>("fstatat");
    const int error = errno;
    struct stat status;
    if (real(directory, path, &status, 0) == 0) recorder::note_file(directory, path, &status);
    errno = error;
    return result;
}

DIR* noted_listing(const char* path, DIR* listed) {
    if (!listed)
        note_absent_file(AT_FDCWD, path);
    else if (recorder::is_recording())
        recorder::note_listing(AT_FDCWD, path, ::dirfd(listed));
    return listed;
}

/// Notes the listing of a function that lists a directory by itself.
void note_listing_of(int directory, const char* path) {
    if (!path || !recorder::is_recording()) return;
    const int error = errno;
    const warmfork::Descriptor opened(
        ::openat(directory, path, O_RDONLY | O_DIRECTORY | O_CLOEXEC));
    if (opened)
        recorder::note_listing(directory, path, opened.get());
    else
        note_absent_file(directory, path);
    errno = error;
}

/// Returns the third argument of open, which is there only where a file may be made.
mode_t mode_of(int flags, va_list arguments) {
    return (flags & O_CREAT) || (flags & O_TMPFILE) == O_TMPFILE ? va_arg(arguments, mode_t) : 0;
}

}  // namespace

#define EXPORT __attribute__((visibility("default")))

#define INTERPOSE_GETENV(name)                                           \
    EXPORT char* name(const char* variable) {                            \
        static char* (*real)(const char*);                               \
        if (!real) real = next<char* (*)(const char*)>(#name);           \
        if (recorder::is_recording()) recorder::note_variable(variable); \
        return real(variable);                                           \
    }

// Whoever writes a variable depends on it too: what was there before is gone.
#define INTERPOSE_WRITE(name, parameters, arguments, variable)           \
    EXPORT int name parameters noexcept {                                \
        static int(*real) parameters;                                    \
        if (!real) real = next<int(*) parameters>(#name);                \
        if (recorder::is_recording()) recorder::note_variable(variable); \
        return real arguments;                                           \
    }

#define CALLER __builtin_return_address(0)

#define INTERPOSE_OPEN(name)                                                  \
    EXPORT int name(const char* path, int flags, ...) {                       \
        static int (*real)(const char*, int, ...);                            \
        if (!real) real = next<int (*)(const char*, int, ...)>(#name);        \
        va_list arguments;                                                    \
        va_start(arguments, flags);                                           \
        const mode_t mode = mode_of(flags, arguments);                        \
        va_end(arguments);                                                    \
        return noted(AT_FDCWD, path, flags, real(path, flags, mode), CALLER); \
    }

#define INTERPOSE_OPENAT(name)                                                            \
    EXPORT int name(int directory, const char* path, int flags, ...) {                    \
        static int (*real)(int, const char*, int, ...);                                   \
        if (!real) real = next<int (*)(int, const char*, int, ...)>(#name);               \
        va_list arguments;                                                                \
        va_start(arguments, flags);                                                       \
        const mode_t mode = mode_of(flags, arguments);                                    \
        va_end(arguments);                                                                \
        return noted(directory, path, flags, real(directory, path, flags, mode), CALLER); \
    }

#define INTERPOSE_FORTIFIED_OPEN(name)                                  \
    EXPORT int name(const char* path, int flags) {                      \
        static int (*real)(const char*, int);                           \
        if (!real) real = next<int (*)(const char*, int)>(#name);       \
        return noted(AT_FDCWD, path, flags, real(path, flags), CALLER); \
    }

#define INTERPOSE_CREAT(name)                                                                 \
    EXPORT int name(const char* path, mode_t mode) {                                          \
        static int (*real)(const char*, mode_t);                                              \
        if (!real) real = next<int (*)(const char*, mode_t)>(#name);                          \
        return noted(AT_FDCWD, path, O_CREAT | O_WRONLY | O_TRUNC, real(path, mode), CALLER); \
    }

#define INTERPOSE_FOPEN(name)                                               \
    EXPORT FILE* name(const char* path, const char* mode) {                 \
        static FILE* (*real)(const char*, const char*);                     \
        if (!real) real = next<FILE* (*)(const char*, const char*)>(#name); \
        return noted(path, mode, real(path, mode), CALLER);                 \
    }

// struct stat and struct stat64 are laid out alike on 64-bit machines.
static_assert(sizeof(struct stat) == sizeof(struct stat64));

#define INTERPOSE_STAT(name, type)                                                                \
    EXPORT int name(const char* path, struct type* status) noexcept {                             \
        static int (*real)(const char*, struct type*);                                            \
        if (!real) real = next<int (*)(const char*, struct type*)>(#name);                        \
        return noted(AT_FDCWD, path, reinterpret_cast<struct stat*>(status), real(path, status)); \
    }

#define INTERPOSE_FSTATAT(name, type)                                                           \
    EXPORT int name(int directory, const char* path, struct type* status, int flags) noexcept { \
        static int (*real)(int, const char*, struct type*, int);                                \
        if (!real) real = next<int (*)(int, const char*, struct type*, int)>(#name);            \
        return noted(directory, path, reinterpret_cast<struct stat*>(status),                   \
                     real(directory, path, status, flags));                                     \
    }

// Programs built against glibc before 2.33 call these in place of stat, lstat and fstatat.
#define INTERPOSE_OLD_STAT(name, type)                                             \
    EXPORT int name(int version, const char* path, struct type* status) noexcept { \
        static int (*real)(int, const char*, struct type*);                        \
        if (!real) real = next<int (*)(int, const char*, struct type*)>(#name);    \
        return noted(AT_FDCWD, path, reinterpret_cast<struct stat*>(status),       \
                     real(version, path, status));                                 \
    }

#define INTERPOSE_OLD_FSTATAT(name, type)                                                 \
    EXPORT int name(int version, int directory, const char* path, struct type* status,    \
                    int flags) noexcept {                                                 \
        static int (*real)(int, int, const char*, struct type*, int);                     \
        if (!real) real = next<int (*)(int, int, const char*, struct type*, int)>(#name); \
        return noted(directory, path, reinterpret_cast<struct stat*>(status),             \
                     real(version, directory, path, status, flags));                      \
    }

// These ask whether there is such a file, and whether it may be executed.
#define INTERPOSE_ACCESS(name)                                       \
    EXPORT int name(const char* path, int mode) noexcept {           \
        static int (*real)(const char*, int);                        \
        if (!real) real = next<int (*)(const char*, int)>(#name);    \
        return noted_access(AT_FDCWD, path, mode, real(path, mode)); \
    }

#define INTERPOSE_SCANDIR(name, type)                                           \
    EXPORT int name(const char* path, struct type*** ret_entries,               \
                    int (*filter)(const struct type*),                          \
                    int (*compare)(const struct type**, const struct type**)) { \
        static decltype(&::name) real;                                          \
        if (!real) real = next<decltype(&::name)>(#name);                       \
        note_listing_of(AT_FDCWD, path);                                        \
        return real(path, ret_entries, filter, compare);                        \
    }

#define INTERPOSE_SCANDIRAT(name, type)                                          \
    EXPORT int name(int directory, const char* path, struct type*** ret_entries, \
                    int (*filter)(const struct type*),                           \
                    int (*compare)(const struct type**, const struct type**)) {  \
        static decltype(&::name) real;                                           \
        if (!real) real = next<decltype(&::name)>(#name);                        \
        note_listing_of(directory, path);                                        \
        return real(directory, path, ret_entries, filter, compare);              \
    }

extern "C" {

INTERPOSE_GETENV(getenv)
INTERPOSE_GETENV(secure_getenv)
INTERPOSE_WRITE(setenv, (const char* name, const char* value, int overwrite),
                (name, value, overwrite), name)
INTERPOSE_WRITE(unsetenv, (const char* name), (name), name)
INTERPOSE_OPEN(open)
INTERPOSE_OPEN(open64)
INTERPOSE_OPENAT(openat)
INTERPOSE_OPENAT(openat64)
INTERPOSE_FORTIFIED_OPEN(__open_2)
INTERPOSE_FORTIFIED_OPEN(__open64_2)
INTERPOSE_CREAT(creat)
INTERPOSE_CREAT(creat64)
INTERPOSE_STAT(stat, stat)
INTERPOSE_STAT(stat64, stat64)
INTERPOSE_STAT(lstat, stat)
INTERPOSE_STAT(lstat64, stat64)
INTERPOSE_FSTATAT(fstatat, stat)
INTERPOSE_FSTATAT(fstatat64, stat64)
INTERPOSE_OLD_STAT(__xstat, stat)
INTERPOSE_OLD_STAT(__xstat64, stat64)
INTERPOSE_OLD_STAT(__lxstat, stat)
INTERPOSE_OLD_STAT(__lxstat64, stat64)
INTERPOSE_OLD_FSTATAT(__fxstatat, stat)
INTERPOSE_OLD_FSTATAT(__fxstatat64, stat64)
INTERPOSE_ACCESS(access)
INTERPOSE_ACCESS(eaccess)
INTERPOSE_ACCESS(euidaccess)

EXPORT int faccessat(int directory, const char* path, int mode, int flags) noexcept {
    static int (*real)(int, const char*, int, int);
    if (!real) real = next<int (*)(int, const char*, int, int)>("faccessat");
    return noted_access(directory, path, mode, real(directory, path, mode, flags));
}

INTERPOSE_FOPEN(fopen)
INTERPOSE_FOPEN(fopen64)

EXPORT DIR* opendir(const char* path) {
    static DIR* (*real)(const char*);
    if (!real) real = next<DIR* (*)(const char*)>("opendir");
    return noted_listing(path, real(path));
}

EXPORT DIR* fdopendir(int descriptor) {
    static DIR* (*real)(int);
    if (!real) real = next<DIR* (*)(int)>("fdopendir");
    DIR* const listed = real(descriptor);
    if (listed && recorder::is_recording()) recorder::note_listing(descriptor, "", descriptor);
    return listed;
}

INTERPOSE_SCANDIR(scandir, dirent)
INTERPOSE_SCANDIR(scandir64, dirent64)
INTERPOSE_SCANDIRAT(scandirat, dirent)
INTERPOSE_SCANDIRAT(scandirat64, dirent64)

}  // extern "C"
