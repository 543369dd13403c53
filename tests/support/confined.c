/* Runs a command under what container engines allow by default, for tests of what may not be asked
 * there: a seccomp filter like Docker's, and of root's capabilities those that Docker leaves.
 *
 *     warmfork-confined [--older] [--without NAME]... [--narrow | --unreadable]
 *         COMMAND [ARGUMENT]...
 *
 * --older: as profiles that know none of the newer system calls. --without: this one too is
 * answered with EPERM; NAME is one of the table `more`. --narrow: the file system is read-only but
 * for an empty /tmp and a /dev/shm of 256 KiB, 64 files may be open, and files are made for their
 * owner alone and may not be executed (umask 0177, which only root can work with). --unreadable: so
 * too, but for the umask; instead the working directory may not be entered, and root is not let in
 * everywhere. Status 77: there is no seccomp here, or this process may not mount.
 */
#define _GNU_SOURCE
#include <errno.h>
#include <fcntl.h>
#include <linux/audit.h>
#include <linux/capability.h>
#include <linux/filter.h>
#include <linux/seccomp.h>
#include <sched.h>
#include <stdbool.h>
#include <stddef.h>
#include <stdio.h>
#include <stdlib.h>
#include <string.h>
#include <sys/mount.h>
#include <sys/prctl.h>
#include <sys/resource.h>
#include <sys/stat.h>
#include <sys/syscall.h>
#include <unistd.h>

#if defined(__x86_64__)
#define ARCHITECTURE AUDIT_ARCH_X86_64
#elif defined(__aarch64__)
#define ARCHITECTURE AUDIT_ARCH_AARCH64
#else
#error "the name of this architecture's system calls is not known"
#endif

struct refusal {
    int number;
    int error;
};

/* What needs a capability that a container does not have, and what engines leave out. */
static const struct refusal by_default[] = {
    {SYS_clone3, ENOSYS}, /* its flags cannot be looked at */
    {SYS_kcmp, EPERM},           {SYS_unshare, EPERM},         {SYS_setns, EPERM},
    {SYS_mount, EPERM},          {SYS_umount2, EPERM},         {SYS_pivot_root, EPERM},
    {SYS_open_tree, EPERM},      {SYS_move_mount, EPERM},      {SYS_fsopen, EPERM},
    {SYS_bpf, EPERM},            {SYS_perf_event_open, EPERM}, {SYS_userfaultfd, EPERM},
    {SYS_io_uring_setup, EPERM}, {SYS_io_uring_enter, EPERM},  {SYS_io_uring_register, EPERM},
    {SYS_get_mempolicy, EPERM},  {SYS_set_mempolicy, EPERM},   {SYS_mbind, EPERM},
    {SYS_add_key, EPERM},        {SYS_request_key, EPERM},     {SYS_keyctl, EPERM},
    {SYS_name_to_handle_at, EPERM}, {SYS_open_by_handle_at, EPERM},
};
static const struct refusal of_older[] = {
    {SYS_close_range, ENOSYS},
    {SYS_openat2, ENOSYS},
    {SYS_faccessat2, ENOSYS},
    {SYS_pidfd_getfd, ENOSYS},
};
static const struct {
    const char* name;
    int number;
} more[] = {
    {"close_range", SYS_close_range},
    {"fcntl", SYS_fcntl},
    {"landlock", SYS_landlock_create_ruleset},
    {"sched_getattr", SYS_sched_getattr},
    {"statx", SYS_statx},
};

static struct sock_filter filter[128];
static unsigned short length;

static void add(struct sock_filter instruction) {
    if (length == sizeof filter / sizeof *filter) abort();
    filter[length++] = instruction;
}

static void load(size_t offset) {
    add((struct sock_filter)BPF_STMT(BPF_LD | BPF_W | BPF_ABS, (unsigned)offset));
}

static void answer(unsigned action) {
    add((struct sock_filter)BPF_STMT(BPF_RET | BPF_K, action));
}

static void refuse(int number, int error) {
    add((struct sock_filter)BPF_JUMP(BPF_JMP | BPF_JEQ | BPF_K, (unsigned)number, 0, 1));
    answer(SECCOMP_RET_ERRNO | (unsigned)error);
}

static void refuse_all(const struct refusal* refusals, size_t count) {
    for (size_t i = 0; i < count; ++i) refuse(refusals[i].number, refusals[i].error);
}

/* clone, where it is to make a namespace. */
static void refuse_new_namespaces(void) {
    const unsigned namespaces = CLONE_NEWNS | CLONE_NEWCGROUP | CLONE_NEWUTS | CLONE_NEWIPC |
                                CLONE_NEWUSER | CLONE_NEWPID | CLONE_NEWNET;
    add((struct sock_filter)BPF_JUMP(BPF_JMP | BPF_JEQ | BPF_K, SYS_clone, 0, 4));
    load(offsetof(struct seccomp_data, args[0])); /* its lower half: little-endian */
    add((struct sock_filter)BPF_JUMP(BPF_JMP | BPF_JSET | BPF_K, namespaces, 0, 1));
    answer(SECCOMP_RET_ERRNO | EPERM);
    answer(SECCOMP_RET_ALLOW);
}

static int install_filter(void) {
    const struct sock_fprog program = {length, filter};
    if (prctl(PR_SET_SECCOMP, SECCOMP_MODE_FILTER, &program) == 0) return 0;
    /* Not root: then nothing that is executed gains privileges either. */
    return prctl(PR_SET_NO_NEW_PRIVS, 1, 0, 0, 0) ||
           prctl(PR_SET_SECCOMP, SECCOMP_MODE_FILTER, &program);
}

/* Of the first 32 capabilities those that Docker leaves to root, and none of the others. */
static int leave_capabilities(bool is_let_in) {
    const unsigned let_in = is_let_in ? 1u << CAP_DAC_OVERRIDE : 0;
    const unsigned kept = let_in | 1u << CAP_CHOWN | 1u << CAP_FSETID | 1u << CAP_FOWNER |
                          1u << CAP_MKNOD | 1u << CAP_NET_RAW | 1u << CAP_SETGID |
                          1u << CAP_SETUID | 1u << CAP_SETPCAP | 1u << CAP_NET_BIND_SERVICE |
                          1u << CAP_SYS_CHROOT | 1u << CAP_KILL | 1u << CAP_AUDIT_WRITE;
    if (geteuid() != 0) return 0;
    for (int capability = 0; prctl(PR_CAPBSET_READ, capability, 0, 0, 0) >= 0; ++capability)
        if (capability > 31 || !(kept >> capability & 1))
            prctl(PR_CAPBSET_DROP, capability, 0, 0, 0); /* refused: it is not there */
    struct __user_cap_header_struct header = {_LINUX_CAPABILITY_VERSION_3, 0};
    struct __user_cap_data_struct data[2];
    if (syscall(SYS_capget, &header, data)) return -1;
    data[0].effective &= kept;
    data[0].permitted &= kept;
    data[0].inheritable = data[1].effective = data[1].permitted = data[1].inheritable = 0;
    return (int)syscall(SYS_capset, &header, data);
}

/* For this process and what it starts. */
static int narrow_files(void) {
    struct mount_attr read_only = {.attr_set = MOUNT_ATTR_RDONLY};
    struct mount_attr writable = {.attr_clr = MOUNT_ATTR_RDONLY};
    if (unshare(CLONE_NEWNS) || mount("none", "/", NULL, MS_REC | MS_PRIVATE, NULL) ||
        mount_setattr(AT_FDCWD, "/", AT_RECURSIVE, &read_only, sizeof read_only) ||
        mount_setattr(AT_FDCWD, "/proc", 0, &writable, sizeof writable) ||
        mount("none", "/tmp", "tmpfs", 0, "mode=1777") ||
        mount("none", "/dev/shm", "tmpfs", 0, "mode=1777,size=256k"))
        return -1;
    const struct rlimit files = {64, 64};
    return setrlimit(RLIMIT_NOFILE, &files);
}

/* A directory that even root may not enter without CAP_DAC_OVERRIDE. */
static int enter_closed_directory(void) {
    char name[] = "/tmp/closed-XXXXXX";
    if (!mkdtemp(name) || chdir(name)) return -1;
    return chmod(name, 0);
}

static int number_of(const char* name) {
    for (size_t i = 0; i < sizeof more / sizeof *more; ++i)
        if (strcmp(more[i].name, name) == 0) return more[i].number;
    fprintf(stderr, "warmfork-confined: cannot refuse %s\n", name);
    exit(64);
}

int main(int argc, char** argv) {
    load(offsetof(struct seccomp_data, arch));
    add((struct sock_filter)BPF_JUMP(BPF_JMP | BPF_JEQ | BPF_K, ARCHITECTURE, 1, 0));
    answer(SECCOMP_RET_ERRNO | ENOSYS);
    load(offsetof(struct seccomp_data, nr));
    bool is_narrow = false, is_unreadable = false;
    int next = 1;
    for (; next < argc && argv[next][0] == '-'; ++next)
        if (strcmp(argv[next], "--older") == 0)
            refuse_all(of_older, sizeof of_older / sizeof *of_older);
        else if (strcmp(argv[next], "--narrow") == 0)
            is_narrow = true;
        else if (strcmp(argv[next], "--unreadable") == 0)
            is_unreadable = true;
        else if (strcmp(argv[next], "--without") == 0 && next + 1 < argc)
            refuse(number_of(argv[++next]), EPERM);
        else
            return 64;
    if (next >= argc) return 64;
    refuse_all(by_default, sizeof by_default / sizeof *by_default);
    refuse_new_namespaces();
    answer(SECCOMP_RET_ALLOW);
    if (((is_narrow || is_unreadable) && narrow_files()) ||
        (is_unreadable && enter_closed_directory()) || install_filter() ||
        leave_capabilities(!is_unreadable)) {
        perror("warmfork-confined");
        return 77;
    }
    if (is_narrow) umask(0177);
    execvp(argv[next], argv + next);
    perror(argv[next]);
    return 127;
}
