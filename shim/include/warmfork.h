/* warmfork: fork warm, not cold.
 *
 * An owner opens a template: a process of its own that does its expensive start-up once and then only
 * forks. What the owner spawns through the template is the owner's own true child (getppid, waitpid,
 * SIGCHLD and pidfd tell so) and starts with that start-up behind it.
 *
 * Conventions. Functions return 0 or a negative errno. `ret_` parameters are written on success only;
 * `ret_failure` (may be null) on failure only. Strings and arrays given are borrowed for the call.
 * Structs that begin with `size` take sizeof of the caller's struct: fields behind it have their
 * defaults. All functions may be called from any thread, the same handle from several at once, except
 * close and free. A handle that is used in a forked copy of its owner answers -ECHILD. No function may
 * be called from a signal handler. It is for Linux only.
 */
#ifndef WARMFORK_H
#define WARMFORK_H

#include <stddef.h>
#include <stdint.h>
#include <sys/resource.h>
#include <sys/types.h>

#ifdef __cplusplus
extern "C" {
#endif

#define WARMFORK_EXPORT __attribute__((visibility("default")))

/* Where a spawn failed. */
enum warmfork_stage {
    WARMFORK_STAGE_NONE = 0,
    WARMFORK_STAGE_RECORD = 1,      /* the request is not valid, or larger than 2 MiB (E2BIG) */
    WARMFORK_STAGE_LAUNCH = 2,      /* the template did not start, or ended while it preloaded */
    WARMFORK_STAGE_GATE = 3,        /* the template is not safe to fork (EBUSY) */
    WARMFORK_STAGE_FORK = 4,        /* the system call that makes the child */
    WARMFORK_STAGE_HAND_OFF = 5,    /* the child was lost before it ran any user code */
    WARMFORK_STAGE_DESCRIPTORS = 6, /* placing the descriptor map */
    WARMFORK_STAGE_SESSION = 7,     /* setsid, setpgid */
    WARMFORK_STAGE_SIGNALS = 8,
    WARMFORK_STAGE_LIMITS = 9,      /* limits, nice, affinity */
    WARMFORK_STAGE_DIRECTORY = 10,  /* chdir */
    WARMFORK_STAGE_TITLE = 11,
    WARMFORK_STAGE_EXEC = 12,       /* execve of the cold backend */
    WARMFORK_STAGE_ELIGIBILITY = 13, /* backend warm was asked for what only cold can do (ENOTSUP) */
    WARMFORK_STAGE_STALE = 14 /* a file that the image came from has changed, again and again (ESTALE) */
};

/* Why `auto` served a request cold. */
enum warmfork_reason {
    WARMFORK_REASON_NONE = 0,          /* it was warm */
    WARMFORK_REASON_ASKED = 1,         /* the cold backend was selected */
    WARMFORK_REASON_NO_TEMPLATE = 2,   /* spawned without a template */
    WARMFORK_REASON_PROGRAM = 3,       /* not the template's program */
    WARMFORK_REASON_COMMAND_LINE = 4,  /* options that shape the interpreter itself */
    WARMFORK_REASON_ENVIRONMENT = 5,   /* a variable that start-up has read differs */
    WARMFORK_REASON_LIMITS = 6,        /* a limit that takes effect at exec only, or is in the way */
    WARMFORK_REASON_DESCRIPTORS = 7,   /* a descriptor's number is in use by the image */
    WARMFORK_REASON_OWNER_CHANGED = 8, /* the owner has changed in a way that a child cannot follow */
    WARMFORK_REASON_RESTARTING = 9,    /* a new template is being preloaded */
    WARMFORK_REASON_GATE = 10,         /* the template is not safe to fork */
    WARMFORK_REASON_FORK = 11,         /* the template could not fork */
    WARMFORK_REASON_STALE = 12,        /* a file that the image came from has changed */
    WARMFORK_REASON_SHADOWED = 13,     /* the child would find another file than preloading has found */
    WARMFORK_REASON_UNRESPONSIVE = 14, /* the template is not ready or does not answer in time, or what was
                                          started as one is none */
    WARMFORK_REASON_COUNT = 15
};

enum warmfork_backend {
    WARMFORK_BACKEND_DEFAULT = 0, /* of the template; else of WARMFORK_BACKEND; else auto */
    WARMFORK_BACKEND_AUTO = 1,    /* warm where it can be, else cold with the reason */
    WARMFORK_BACKEND_WARM = 2,    /* warm or an error */
    WARMFORK_BACKEND_COLD = 3     /* vfork and exec of the same request */
};

/* What a spawn does when a file that the image came from has changed. A new image is preloaded in any
 * case. */
enum warmfork_on_stale {
    WARMFORK_STALE_COLD = 0, /* cold until the new image is ready */
    WARMFORK_STALE_WAIT = 1, /* wait for it */
    WARMFORK_STALE_SERVE = 2 /* take the old image meanwhile */
};

struct warmfork_failure {
    enum warmfork_stage stage;
    int error_number; /* positive errno */
    int detail;       /* descriptor or resource number, where the stage has one */
    char text[4096];  /* what was attempted, on what, why it failed; for a template that did not start
                         the last lines that it wrote */
};

typedef struct warmfork_template warmfork_template;
typedef struct warmfork_process warmfork_process;

#define WARMFORK_SPARES_ADAPTIVE (-1) /* between 1 and 8: grows when a spawn finds none parked */

struct warmfork_template_options {
    size_t size; /* sizeof(struct warmfork_template_options) */
    /* The command line of a native template; program[0] is a path or a name in PATH. The program calls
     * warmfork_template_serve. */
    const char *const *program;
    /* Or the interpreter of a Python template, and the modules to import, in this order. */
    const char *python;
    const char *const *preload;
    const char *const *python_path; /* directories to look for them first; null: the current one */
    const char *const *python_options; /* of the interpreter, for the first image ("-B"); null: none */
    const char *const *environment; /* of the template; null: the owner's, at each start */
    const char *directory;          /* of the template while preloading; null: the owner's */
    int32_t spares;                 /* parked children to keep, at most 4096, or ADAPTIVE; default -1 */
    enum warmfork_backend backend;  /* for requests that do not say */
    const char *const *allow;       /* exceptions from the fork-safety gate: "thread:COMM",
                                       "descriptor:PREFIX" of what /proc/self/fd shows,
                                       "mapping:PREFIX" of what /proc/self/maps shows, or
                                       "identity:", "output:", "program:", "directory:" with a MODULE,
                                       or "directory:./NAME" */
    /* In Python "module:function" is called in the template before each fork, or in each child right
     * before its program. What the first raises is printed; what the second raises ends the child. */
    const char *before_fork, *in_child;
    enum warmfork_on_stale on_stale;
    uint32_t variants; /* images kept beside the first, for other options of the interpreter or other
                          values of variables that preloading reads; default 4 */
    uint32_t learn; /* Python, 0 or 1: children report at exit what they imported beyond the image, under
                       $XDG_STATE_HOME/warmfork, and what most of them import is preloaded in the next */
    uint32_t nested; /* 0 or 1: each child keeps a parked copy of the template, as its own child, and has
                        it for the first template with the same definition that it opens itself */
    const char *name; /* with learn: the program whose children these are, as its main file; what those of
                         another import is not preloaded. Null: none */
};

/* The defaults, with `size` filled in. */
WARMFORK_EXPORT void warmfork_template_options_init(struct warmfork_template_options *options);

/* Starts a template and returns at once. Of the spawns that come before it is ready, and may be cold, the
 * first one or two are, as a cold child is there sooner; later ones wait, up to 15 seconds after its start,
 * and go cold then. One whose backend is warm waits up to five minutes. The template ends with this process.
 * Opened from the main thread, its children have a parent-death signal, which the end of that thread raises
 * too: where that ends before the process (pthread_exit in main), open it, and spawn what may be cold, from
 * another thread. Errors: -EINVAL (neither or both of program and python), -ENOENT (no such program), -EMFILE,
 * -ENOMEM, -ELOOP (this process was itself started as a template, and is not one yet). */
WARMFORK_EXPORT int warmfork_template_open(const struct warmfork_template_options *options,
                                           warmfork_template **ret_template,
                                           struct warmfork_failure *ret_failure);

/* Opens a template of this user's service (warmforkd) by its name; where no service runs one is started.
 * The template outlives this process. Its children are the service's: warmfork_process_wait, _pidfd and
 * _signal work for them, waitpid does not; they have the service's session, cgroup and oom_score_adj, a
 * process group of their own, and end with this process unless detached. What a child of the service cannot
 * be is started cold by this process. Errors: -ENOENT (no such template, no place for a service), -EACCES,
 * others with stage launch. Blocks until the service has answered. */
WARMFORK_EXPORT int warmfork_template_connect(const char *name, enum warmfork_backend backend,
                                              warmfork_template **ret_template,
                                              struct warmfork_failure *ret_failure);

/* Waits until the template has preloaded; timeout_ms of -1 is for ever. Errors: -ETIMEDOUT; -EBUSY (stage
 * gate); others with stage launch. A template that has ended is started again. */
WARMFORK_EXPORT int warmfork_template_wait_ready(warmfork_template *self, int timeout_ms,
                                                 struct warmfork_failure *ret_failure);

/* Writes what the template is about to preload to `text`, at most `size` bytes with the NUL, for people who
 * wait at a terminal: "3/12 numpy", or "" when it is ready or says nothing (native templates). */
WARMFORK_EXPORT void warmfork_template_progress(warmfork_template *self, char *text, size_t size);

/* Waits until at least `count` children are parked and the template sleeps, so that a spawn right after
 * costs one wake-up. Errors: as wait_ready. */
WARMFORK_EXPORT int warmfork_template_wait_parked(warmfork_template *self, uint32_t count,
                                                  int timeout_ms,
                                                  struct warmfork_failure *ret_failure);

/* Changes the number of spares. Errors: -EINVAL, -EAGAIN (the ring is full), -ENOTSUP (of a service). */
WARMFORK_EXPORT int warmfork_template_set_spares(warmfork_template *self, int32_t spares);

/* Returns the template's pid, or 0 while there is none. */
WARMFORK_EXPORT pid_t warmfork_template_pid(warmfork_template *self);

/* Returns the number of children that are parked now. */
WARMFORK_EXPORT uint32_t warmfork_template_parked(warmfork_template *self);

struct warmfork_counts {
    size_t size;
    uint64_t handed_off; /* spawned by hand-off to a parked child */
    uint64_t forked;     /* spawned by a fork on command */
    uint64_t cold;
    uint64_t cold_by_reason[WARMFORK_REASON_COUNT];
    uint64_t template_starts;
};
WARMFORK_EXPORT int warmfork_template_counts(warmfork_template *self,
                                             struct warmfork_counts *ret_counts);

/* Says what the template looks like from inside, as JSON: threads, descriptors, mappings, resident memory,
 * fork time, and for Python the import time of each module. The caller frees it with free().
 * Errors: -ENOTSUP for one of the service. */
WARMFORK_EXPORT int warmfork_template_report(warmfork_template *self, char **ret_json,
                                             struct warmfork_failure *ret_failure);

/* Ends template and spares and frees the handle; null is fine. Children that run are untouched and
 * still end with this process unless detached. Blocks until they are gone, some milliseconds. */
WARMFORK_EXPORT void warmfork_template_close(warmfork_template *self);

struct warmfork_descriptor {
    int source; /* of the owner; -1: closed in the child */
    int target; /* in the child */
};

struct warmfork_limit {
    uint32_t resource; /* RLIMIT_* */
    uint64_t soft, hard;
};

#define WARMFORK_NEW_SESSION (1u << 0)      /* setsid */
#define WARMFORK_PROCESS_GROUP (1u << 1)    /* setpgid(0, process_group) */
#define WARMFORK_SIGNAL_MASK (1u << 2)      /* signal_mask instead of the calling thread's */
#define WARMFORK_SIGNALS_DEFAULT (1u << 3)  /* signals_default go back to the default action */
#define WARMFORK_SIGNALS_IGNORED (1u << 4)  /* signals_ignored are ignored */
#define WARMFORK_UMASK (1u << 5)
#define WARMFORK_NICE (1u << 6)             /* an absolute nice value */
#define WARMFORK_DETACHED (1u << 7)         /* the child outlives this process */
#define WARMFORK_NONBLOCK (1u << 8)         /* -EAGAIN rather than wait for room in the ring */
#define WARMFORK_NOT_COLD (1u << 9)         /* with backend auto: what would be cold fails (ENOTSUP) */
#define WARMFORK_TERMINAL (1u << 10)        /* setsid, and standard input, a terminal that controls no session
                                               yet, controls this one. Ctrl-Z stops the child as a shell's
                                               job. What would be cold fails (ENOTSUP) */

struct warmfork_request {
    size_t size; /* sizeof(struct warmfork_request) */
    uint32_t flags;
    enum warmfork_backend backend;
    const char *const *arguments;           /* null-terminated, at least one */
    const char *executable;                 /* what to run; null: arguments[0]. Without a slash it is
                                               looked up in the child's PATH */
    const char *const *environment;         /* null: the owner's of this moment */
    const char *const *environment_changes; /* NAME=VALUE sets, NAME removes; null: none */
    const char *directory;                  /* null: the owner's */
    /* 0, 1 and 2 are inherited unless the map names them; all others are closed in the child. */
    const struct warmfork_descriptor *descriptors;
    size_t descriptor_count; /* at most 250 */
    uint64_t signal_mask;    /* signals: bit n-1 is signal n */
    uint64_t signals_default;
    uint64_t signals_ignored;
    pid_t process_group;
    uint32_t file_mode_mask;
    int32_t nice;
    const void *affinity; /* as of sched_setaffinity; null: the owner's */
    size_t affinity_size;
    const struct warmfork_limit *limits; /* the others are the owner's */
    size_t limit_count;
    const void *payload; /* for a native template's child; not seen by cold ones */
    size_t payload_size;
    const char *const *python_path; /* Python: where the program will look for modules, in order, where
                                       it sets sys.path itself; null: where PYTHONPATH says */
};

WARMFORK_EXPORT void warmfork_request_init(struct warmfork_request *request);

/* Spawns one child and returns when it is about to run user code, as posix_spawn does: what fails before
 * is this call's error, (stage, errno), and leaves no process behind. Where `self` is null it is cold. A
 * template or child that does not answer within five seconds is killed, and the request served by another,
 * or cold; with backend warm the error is -ETIMEDOUT. The child inherits what a child of posix_spawn would
 * inherit from this process at this moment. */
WARMFORK_EXPORT int warmfork_spawn(warmfork_template *self, const struct warmfork_request *request,
                                   warmfork_process **ret_process,
                                   struct warmfork_failure *ret_failure);

/* Spawns `count` (at most 250) children of one request as one command to the template. It spawns all or
 * none: where one fails, those that were born are killed and reaped. Errors: as of warmfork_spawn. */
WARMFORK_EXPORT int warmfork_spawn_many(warmfork_template *self,
                                        const struct warmfork_request *request, uint32_t count,
                                        warmfork_process **ret_processes,
                                        struct warmfork_failure *ret_failure);

/* Says how a spawn would be served, without one. ret_reason is NONE if warm; a variant that is yet to be
 * preloaded counts as cold. ret_text is a sentence, which the caller frees with free(). Wait for readiness
 * first: what an image depends on is known then. */
WARMFORK_EXPORT int warmfork_explain(warmfork_template *self, const struct warmfork_request *request,
                                     enum warmfork_reason *ret_reason, char **ret_text,
                                     struct warmfork_failure *ret_failure);

/* Makes a child that something else has started end with this process as well: SIGTERM, then SIGKILL.
 * Between its start and this call it is not looked after. Errors: -ESRCH, -ENOENT (no keeper). */
WARMFORK_EXPORT int warmfork_keep(pid_t pid, struct warmfork_failure *ret_failure);

WARMFORK_EXPORT pid_t warmfork_process_pid(const warmfork_process *self);
/* Returns WARMFORK_BACKEND_WARM or _COLD. */
WARMFORK_EXPORT enum warmfork_backend warmfork_process_backend(const warmfork_process *self);
/* Returns why it was cold; ret_text (may be null) is set to a sentence that lives as long as the handle. */
WARMFORK_EXPORT enum warmfork_reason warmfork_process_reason(const warmfork_process *self,
                                                             const char **ret_text);
/* Returns a pidfd, which the first call opens and which is the handle's. Errors: -ESRCH once the process
 * has been reaped. */
WARMFORK_EXPORT int warmfork_process_pidfd(warmfork_process *self);
/* Waits for the end. `options` is 0, or WNOHANG (-EAGAIN while it runs). ret_status is as of waitpid;
 * ret_usage may be null. Once known the status is kept. Errors: -ECHILD (somebody else has taken the
 * status, by waiting for any child or with SIGCHLD ignored, and the kernel cannot tell it again), -EOWNERDEAD
 * (it is lost as the service whose child it was has died), -EMFILE (no descriptor is free to look at it by).
 * Where the kernel tells a status that somebody else has taken, the usage is zero. */
WARMFORK_EXPORT int warmfork_process_wait(warmfork_process *self, int options, int *ret_status,
                                          struct rusage *ret_usage);
/* Sends a signal to this child, and to no other that may have its pid by now. Errors: -ESRCH once it has
 * been reaped; -EMFILE. */
WARMFORK_EXPORT int warmfork_process_signal(warmfork_process *self, int signal);
/* Frees the handle. The process goes on, and whoever likes waits for it. Null is fine. */
WARMFORK_EXPORT void warmfork_process_free(warmfork_process *self);

/* In a program that is a native template: */

struct warmfork_command {
    size_t size;
    int argument_count;
    char **arguments; /* the child's own, null-terminated */
    const void *payload;
    size_t payload_size;
};

/* Must be called at the point of readiness, by the main and only thread. Returns 1 once in each child,
 * with its command, the child set up as its request says; 0 in the template, when it is to end; or an
 * error if this process cannot serve: -ENOTCONN (not started by warmfork_template_open), -EBUSY (the
 * gate; ret_failure says what is in the way). In a child, exit() runs no handler that was registered
 * before the fork. */
WARMFORK_EXPORT int warmfork_template_serve(struct warmfork_command *ret_command,
                                            struct warmfork_failure *ret_failure);

/* These return the words that messages and reports use, as "auto" or "gate"; never null. */
WARMFORK_EXPORT const char *warmfork_backend_name(enum warmfork_backend backend);
WARMFORK_EXPORT const char *warmfork_reason_name(enum warmfork_reason reason);
WARMFORK_EXPORT const char *warmfork_stage_name(enum warmfork_stage stage);

#ifdef __cplusplus
}
#endif
#endif
