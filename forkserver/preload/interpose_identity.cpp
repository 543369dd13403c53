// The calls of libc by which a program asks which process and thread it is, in which directory and
// at what time, and draws random bytes. They are passed on, and noted with who called; so are those
// by which it limits which system calls it may make.
#include <dlfcn.h>
#include <sys/prctl.h>
#include <sys/syscall.h>
#include <sys/time.h>
#include <sys/types.h>
#include <time.h>

#include <cstdarg>

#include "preload/recorder.hpp"

namespace recorder = warmfork::recorder;

namespace {

template <typename Function>
Function next(const char* name) {
    return reinterpret_cast<Function>(::dlsym(RTLD_NEXT, name));
}

using SystemCall = long (*)(long, ...);

SystemCall real_system_call() {
    static SystemCall real;
    if (!real) real = next<SystemCall>("syscall");
    return real;
}

/// Notes a thread's id, and returns it. The first thread's id is the process's, which is another
/// one in a child. That of another thread, which ends before there is a child, is no number that
/// one could have.
pid_t noted_thread(pid_t thread, const void* caller) {
    if (recorder::is_recording() && thread == recorder::system_call(SYS_getpid))
        recorder::note_asked(warmfork::kAskedThread, caller);
    return thread;
}

/// Notes the random bytes that a call has given, and returns its result.
ssize_t noted(const void* bytes, ssize_t size, const void* caller) {
    if (size > 0 && recorder::is_recording())
        recorder::note_random(bytes, static_cast<std::size_t>(size), caller);
    return size;
}

}  // namespace

long recorder::system_call(long number) {
    return real_system_call()(number);
}

#define EXPORT __attribute__((visibility("default")))

#define INTERPOSE_QUESTION(type, name, parameters, arguments, kind)            \
    EXPORT type name parameters noexcept {                                     \
        static type(*real) parameters;                                         \
        if (!real) real = next<type(*) parameters>(#name);                     \
        if (recorder::is_recording())                                          \
            recorder::note_asked(warmfork::kind, __builtin_return_address(0)); \
        return real arguments;                                                 \
    }

extern "C" {

INTERPOSE_QUESTION(pid_t, getpid, (), (), kAskedProcess)
// A template leads a process group of its own, which has its id.
INTERPOSE_QUESTION(pid_t, getpgrp, (), (), kAskedProcess)
INTERPOSE_QUESTION(pid_t, getpgid, (pid_t process), (process), kAskedProcess)
INTERPOSE_QUESTION(time_t, time, (time_t * ret_time), (ret_time), kAskedClock)
INTERPOSE_QUESTION(int, gettimeofday, (timeval * ret_time, void* zone), (ret_time, zone),
                   kAskedClock)
INTERPOSE_QUESTION(int, timespec_get, (timespec * ret_time, int base), (ret_time, base),
                   kAskedClock)

INTERPOSE_QUESTION(char*, getcwd, (char* ret_path, size_t size), (ret_path, size), kAskedDirectory)
INTERPOSE_QUESTION(char*, __getcwd_chk, (char* ret_path, size_t size, size_t room),
                   (ret_path, size, room), kAskedDirectory)
INTERPOSE_QUESTION(char*, get_current_dir_name, (), (), kAskedDirectory)

EXPORT pid_t gettid() noexcept {
    const auto thread = static_cast<pid_t>(recorder::system_call(SYS_gettid));
    return noted_thread(thread, __builtin_return_address(0));
}

// Only the time of day is noted: Python asks for the other clocks whenever it takes a lock.
EXPORT int clock_gettime(clockid_t clock, timespec* ret_time) noexcept {
    static int (*real)(clockid_t, timespec*);
    if (!real) real = next<int (*)(clockid_t, timespec*)>("clock_gettime");
    const bool is_time_of_day = clock == CLOCK_REALTIME || clock == CLOCK_REALTIME_COARSE;
    if (is_time_of_day && recorder::is_recording())
        recorder::note_asked(warmfork::kAskedClock, __builtin_return_address(0));
    return real(clock, ret_time);
}

EXPORT ssize_t getrandom(void* bytes, size_t size, unsigned flags) {
    static ssize_t (*real)(void*, size_t, unsigned);
    if (!real) real = next<ssize_t (*)(void*, size_t, unsigned)>("getrandom");
    return noted(bytes, real(bytes, size, flags), __builtin_return_address(0));
}

EXPORT int getentropy(void* bytes, size_t size) {
    static int (*real)(void*, size_t);
    if (!real) real = next<int (*)(void*, size_t)>("getentropy");
    const int result = real(bytes, size);
    if (result == 0) noted(bytes, static_cast<ssize_t>(size), __builtin_return_address(0));
    return result;
}

// Python asks for the thread's id by this.
EXPORT long syscall(long number, ...) noexcept {
    va_list arguments;
    va_start(arguments, number);
    long values[6];
    for (long& value : values) value = va_arg(arguments, long);
    va_end(arguments);
    const void* caller = __builtin_return_address(0);
    if (number == SYS_getpid && recorder::is_recording())
        recorder::note_asked(warmfork::kAskedProcess, caller);
    if (number == SYS_seccomp || (number == SYS_prctl && values[0] == PR_SET_SECCOMP))
        recorder::note_filter();
    const long result = real_system_call()(number, values[0], values[1], values[2], values[3],
                                           values[4], values[5]);
    if (number == SYS_gettid) noted_thread(static_cast<pid_t>(result), caller);
    if (number == SYS_getrandom) noted(reinterpret_cast<void*>(values[0]), result, caller);
    return result;
}

EXPORT int prctl(int option, ...) noexcept {
    static int (*real)(int, ...);
    if (!real) real = next<int (*)(int, ...)>("prctl");
    va_list arguments;
    va_start(arguments, option);
    unsigned long values[4];
    for (unsigned long& value : values) value = va_arg(arguments, unsigned long);
    va_end(arguments);
    if (option == PR_SET_SECCOMP) recorder::note_filter();
    return real(option, values[0], values[1], values[2], values[3]);
}

}  // extern "C"
