/* Asks about a file by the name of a function of libc, as programs built against any glibc do. */
#define _GNU_SOURCE
#include <dirent.h>
#include <fcntl.h>
#include <stdio.h>
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

static int close_listing(DIR* listing) {
    return listing ? closedir(listing) : -1;
}

/* By the kernel's link to the directory that it lies in. */
static int open_below_descriptor(const char* path) {
    char folder[4096], link[4200];
    const char* name = strrchr(path, '/');
    snprintf(folder, sizeof folder, "%.*s", (int)(name - path), path);
    const int descriptor = open(folder, O_PATH | O_DIRECTORY);
    snprintf(link, sizeof link, "/proc/self/fd/%d%s", descriptor, name);
    const int file = open(link, O_RDONLY);
    close(descriptor);
    return file < 0 ? -1 : close(file);
}

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
    if (strcmp(function, "may-execute") == 0) return access(path, X_OK);
    if (strcmp(function, "open-below-descriptor") == 0) return open_below_descriptor(path);
    if (strcmp(function, "opendir") == 0) return close_listing(opendir(path));
    if (strcmp(function, "fdopendir") == 0)
        return close_listing(fdopendir(open(path, O_RDONLY | O_DIRECTORY)));
    struct dirent** entries;
    if (strcmp(function, "scandir") == 0) return scandir(path, &entries, NULL, NULL);
    abort();
}
