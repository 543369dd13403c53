// libwarmfork-preload.so records the pthread_atfork handlers of a template and passes them on (the
// template makes its children with a raw clone, of which glibc's handler list knows nothing). It
// also records what the template reads (recorder.hpp).
#include <dlfcn.h>
#include <fcntl.h>
#include <pthread.h>
#include <unistd.h>

#include <cerrno>
#include <cstdlib>
#include <cstring>

#include "channel/descriptor.hpp"
#include "preload/recorder.hpp"
#include "protocol/messages.hpp"
#include "protocol/preload_interface.hpp"

namespace {

using warmfork::AtforkHandlers;
using RegisterAtfork = int (*)(void (*)(), void (*)(), void (*)(), void*);
using Finalize = void (*)(void*);

// It lies above the numbers that a program's own files get.
constexpr int kLowestChannel = 200;

// Libraries register from their constructors, in any thread that loads them.
pthread_mutex_t lock = PTHREAD_MUTEX_INITIALIZER;
AtforkHandlers* recorded = nullptr;
std::size_t recorded_count = 0;
std::size_t recorded_capacity = 0;
warmfork::PreloadInterface interface {};

RegisterAtfork real_register_atfork() {
    static const auto real =
        reinterpret_cast<RegisterAtfork>(::dlsym(RTLD_NEXT, "__register_atfork"));
    return real;
}

int record(const AtforkHandlers& handlers) {
    if (recorded_count == recorded_capacity) {
        const std::size_t capacity = recorded_capacity ? 2 * recorded_capacity : 32;
        void* larger = std::realloc(recorded, capacity * sizeof *recorded);
        if (!larger) return ENOMEM;
        recorded = static_cast<AtforkHandlers*>(larger);
        recorded_capacity = capacity;
    }
    recorded[recorded_count++] = handlers;
    return 0;
}

void drop_handlers(void* library) {
    std::size_t kept = 0;
    for (std::size_t i = 0; i < recorded_count; ++i)
        if (recorded[i].library != library) recorded[kept++] = recorded[i];
    recorded_count = kept;
}

const AtforkHandlers* handlers(std::size_t* ret_count) {
    *ret_count = recorded_count;
    return recorded;
}

int take_channel() {
    const int channel = interface.channel;
    interface.channel = -1;
    return channel;
}

/// Takes this library, always the first entry, out of LD_PRELOAD.
void leave_preload_list() {
    const char* list = std::getenv("LD_PRELOAD");
    if (!list) return;
    const std::size_t own = std::strcspn(list, ": ");
    if (list[own] == '\0') {
        ::unsetenv("LD_PRELOAD");
    } else if (char* rest = ::strdup(list + own + 1)) {
        ::setenv("LD_PRELOAD", rest, 1);
        std::free(rest);
    }
}

__attribute__((constructor)) void take_over() {
    interface.version = warmfork::kPreloadVersion;
    interface.channel = -1;
    interface.real_register_atfork = reinterpret_cast<void*>(real_register_atfork());
    interface.take_channel = take_channel;
    interface.handlers = handlers;
    interface.stop_recording = warmfork::recorder::stop;
    interface.resume_recording = warmfork::recorder::resume;
    interface.asked = warmfork::recorder::asked();
    interface.made = warmfork::recorder::made();
    interface.has_filter = warmfork::recorder::has_filter();
    interface.list_for = warmfork::recorder::list_for;
    interface.drop_listing = warmfork::recorder::drop_listing;
    const char* channel = std::getenv(warmfork::kChannelVariable);
    if (!channel) return;
    // What preloading may start must not have it, nor may it be in the way of what preloading
    // opens.
    warmfork::Descriptor socket(std::atoi(channel));
    ::fcntl(socket.get(), F_SETFD, FD_CLOEXEC);
    interface.channel = warmfork::moved_up(std::move(socket), kLowestChannel).release();
    ::unsetenv(warmfork::kChannelVariable);
    // This is a native program that can be a template. By the channel it sees what the variable is
    // for.
    if (::dlsym(RTLD_DEFAULT, "warmfork_template_serve")) ::unsetenv(warmfork::kLaunchVariable);
    leave_preload_list();
    warmfork::recorder::start();
}

}  // namespace

extern "C" {

__attribute__((visibility("default"))) const warmfork::PreloadInterface*
warmfork_preload_interface() {
    return &interface;
}

__attribute__((visibility("default"))) int __register_atfork(void (*prepare)(), void (*parent)(),
                                                             void (*child)(), void* library) {
    ::pthread_mutex_lock(&lock);
    int error = record({prepare, parent, child, library});
    if (!error) error = real_register_atfork()(prepare, parent, child, library);
    ::pthread_mutex_unlock(&lock);
    return error;
}

// dlclose runs a library's finalizers through this; glibc drops the library's handlers here too.
__attribute__((visibility("default"))) void __cxa_finalize(void* library) {
    static const auto real = reinterpret_cast<Finalize>(::dlsym(RTLD_NEXT, "__cxa_finalize"));
    if (library) {
        ::pthread_mutex_lock(&lock);
        drop_handlers(library);
        ::pthread_mutex_unlock(&lock);
    }
    real(library);
}

}  // extern "C"
