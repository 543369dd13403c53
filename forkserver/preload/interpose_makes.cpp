// The calls of libc by which a program makes, changes and removes files and directories other than
// by opening them, passed on and recorded.
#include <dlfcn.h>
#include <fcntl.h>
#include <stdio.h>
#include <sys/stat.h>
#include <unistd.h>

#include <cerrno>

#include "preload/recorder.hpp"

namespace recorder = warmfork::recorder;

namespace {

/// Whether it could be done depends on what is there already.
void note_made(int result, int directory, const char* path) {
    if ((result == 0 || errno == EEXIST || errno == ENOENT) && recorder::is_recording())
        recorder::note_made(directory, path);
}

}  // namespace

#define EXPORT __attribute__((visibility("default")))

#define INTERPOSE_MAKE(name, parameters, arguments, directory, path)                   \
    EXPORT int name parameters noexcept {                                              \
        static decltype(&::name) real;                                                 \
        if (!real) real = reinterpret_cast<decltype(real)>(::dlsym(RTLD_NEXT, #name)); \
        const int result = real arguments;                                             \
        note_made(result, directory, path);                                            \
        return result;                                                                 \
    }

#define INTERPOSE_RENAME(name, parameters, arguments, from, old_path, to, new_path)    \
    EXPORT int name parameters noexcept {                                              \
        static decltype(&::name) real;                                                 \
        if (!real) real = reinterpret_cast<decltype(real)>(::dlsym(RTLD_NEXT, #name)); \
        const int result = real arguments;                                             \
        note_made(result, from, old_path);                                             \
        note_made(result, to, new_path);                                               \
        return result;                                                                 \
    }

extern "C" {

INTERPOSE_MAKE(mkdir, (const char* path, mode_t mode), (path, mode), AT_FDCWD, path)
INTERPOSE_MAKE(mkdirat, (int directory, const char* path, mode_t mode), (directory, path, mode),
               directory, path)
INTERPOSE_MAKE(rmdir, (const char* path), (path), AT_FDCWD, path)
INTERPOSE_MAKE(unlink, (const char* path), (path), AT_FDCWD, path)
INTERPOSE_MAKE(unlinkat, (int directory, const char* path, int flags), (directory, path, flags),
               directory, path)
INTERPOSE_MAKE(symlink, (const char* target, const char* path), (target, path), AT_FDCWD, path)
INTERPOSE_MAKE(symlinkat, (const char* target, int directory, const char* path),
               (target, directory, path), directory, path)
INTERPOSE_MAKE(link, (const char* file, const char* path), (file, path), AT_FDCWD, path)
INTERPOSE_MAKE(linkat, (int from, const char* file, int directory, const char* path, int flags),
               (from, file, directory, path, flags), directory, path)
INTERPOSE_MAKE(mkfifo, (const char* path, mode_t mode), (path, mode), AT_FDCWD, path)
INTERPOSE_MAKE(mkfifoat, (int directory, const char* path, mode_t mode), (directory, path, mode),
               directory, path)
INTERPOSE_MAKE(mknod, (const char* path, mode_t mode, dev_t device), (path, mode, device), AT_FDCWD,
               path)
INTERPOSE_MAKE(mknodat, (int directory, const char* path, mode_t mode, dev_t device),
               (directory, path, mode, device), directory, path)
INTERPOSE_MAKE(chmod, (const char* path, mode_t mode), (path, mode), AT_FDCWD, path)
INTERPOSE_MAKE(fchmodat, (int directory, const char* path, mode_t mode, int flags),
               (directory, path, mode, flags), directory, path)
INTERPOSE_MAKE(chown, (const char* path, uid_t user, gid_t group), (path, user, group), AT_FDCWD,
               path)
INTERPOSE_MAKE(lchown, (const char* path, uid_t user, gid_t group), (path, user, group), AT_FDCWD,
               path)
INTERPOSE_MAKE(fchownat, (int directory, const char* path, uid_t user, gid_t group, int flags),
               (directory, path, user, group, flags), directory, path)
INTERPOSE_MAKE(truncate, (const char* path, off_t size), (path, size), AT_FDCWD, path)
INTERPOSE_MAKE(truncate64, (const char* path, off64_t size), (path, size), AT_FDCWD, path)
INTERPOSE_MAKE(utimensat,
               (int directory, const char* path, const struct timespec times[2], int flags),
               (directory, path, times, flags), directory, path)
INTERPOSE_RENAME(rename, (const char* from, const char* to), (from, to), AT_FDCWD, from, AT_FDCWD,
                 to)
INTERPOSE_RENAME(renameat, (int from, const char* old_path, int to, const char* new_path),
                 (from, old_path, to, new_path), from, old_path, to, new_path)
INTERPOSE_RENAME(renameat2,
                 (int from, const char* old_path, int to, const char* new_path, unsigned flags),
                 (from, old_path, to, new_path, flags), from, old_path, to, new_path)

}  // extern "C"
