/* Asks about a file by the name of a function of libc, as programs built against any glibc do. */
#define _GNU_SOURCE
#include <fcntl.h>
#include <stdlib.h>
#include <string.h>
#include <sys/stat.h>
#include <unistd.h>

/* Of glibc before 2.33: still in the library, no longer in its headers. */
#ifdef __x86_64__
#define STAT_VERSION 1
#else
#define STAT_VERSION 0
#endif
int __xstat(int version, const char* path, struct stat* status);
int __lxstat(int version, const char* path, struct stat* status);
int __fxstatat(int version, int directory, const char* path, struct stat* status, int flags);

int ask_for_file(const char* function, const char* path) {
    struct stat status;
    if (strcmp(function, "stat") == 0) return stat(path, &status);
    if (strcmp(function, "lstat") == 0) return lstat(path, &status);
    if (strcmp(function, "fstatat") == 0) return fstatat(AT_FDCWD, path, &status, 0);
    if (strcmp(function, "__xstat") == 0) return __xstat(STAT_VERSION, path, &status);
    if (strcmp(function, "__lxstat") == 0) return __lxstat(STAT_VERSION, path, &status);
    if (strcmp(function, "__fxstatat") == 0)
        return __fxstatat(STAT_VERSION, AT_FDCWD, path, &status, 0);
    if (strcmp(function, "access") == 0) return access(path, R_OK);
    if (strcmp(function, "faccessat") == 0) return faccessat(AT_FDCWD, path, R_OK, AT_EACCESS);
    abort();
}
