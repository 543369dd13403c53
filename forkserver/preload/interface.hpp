// What the preload library (libwarmfork-preload.so, first in a template's LD_PRELOAD) tells the
// template runtime. The library is found with dlsym, so that neither links to the other.
#pragma once

#include <cstddef>
#include <cstdint>

namespace warmfork {

/// Raised whenever PreloadInterface changes.
inline constexpr std::uint32_t kPreloadVersion = 1;
inline constexpr const char* kPreloadSymbol = "warmfork_preload_interface";

/// One registration by pthread_atfork; each function may be null.
struct AtforkHandlers {
    void (*prepare)();
    void (*parent)();
    void (*child)();
    void* library;  ///< the dso handle given at registration
};

struct PreloadInterface {
    std::uint32_t version;
    /// The control socket, taken out of WARMFORK_CHANNEL before any other code ran; -1: none.
    int channel;
    /// glibc's own __register_atfork, to recognise libraries that are bound past the recorder.
    void* real_register_atfork;
    /// The registrations in order. The pointer is good until the next registration.
    const AtforkHandlers* (*handlers)(std::size_t* ret_count);
};

using PreloadEntry = const PreloadInterface* (*)();

}  // namespace warmfork
