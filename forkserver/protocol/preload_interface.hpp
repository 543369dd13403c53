// What the preload library (libwarmfork-preload.so, first in a template's LD_PRELOAD) tells the
// template runtime. The library is found with dlsym, so that neither links to the other.
#pragma once

#include <cstddef>
#include <cstdint>
#include <iterator>

#include "protocol/files.hpp"

namespace warmfork {

/// Raised whenever PreloadInterface changes.
inline constexpr std::uint32_t kPreloadVersion = 8;
inline constexpr const char* kPreloadSymbol = "warmfork_preload_interface";

/// One registration by pthread_atfork; each function may be null.
struct AtforkHandlers {
    void (*prepare)();
    void (*parent)();
    void (*child)();
    void* library;  ///< the dso handle given at registration
};

/// A regular file that was opened for reading or asked about, as it was when that happened first.
/// Without an inode there was none. Times are in nanoseconds.
struct OpenedFile {
    const char* path;  ///< absolute
    std::uint64_t device, inode;
    std::int64_t size, modified, changed;
    const char* name;  ///< relative to the working directory; null: by no such name
};

/// A directory whose names were read, with those that it had when that happened first.
struct ListedDirectory {
    const char* path;      ///< absolute
    std::uint32_t listed;  ///< what for: kListedNames and the like
    ListingDigest digest;
    const char* name;  ///< as of OpenedFile
};

/// What was read while the image was made. The pointers are good for the life of the process.
struct RecordedReads {
    const char* const* variables;  ///< names that getenv was asked for
    std::size_t variable_count;
    const OpenedFile* files;
    std::size_t file_count;
    const ListedDirectory* listings;
    std::size_t listing_count;
    bool has_all_variables, has_all_files;  ///< false: there were more than could be recorded
    bool has_memory;                        ///< false: there was none to record anything in
    std::int64_t resumed;  ///< when the recording went on in this process; 0: it began here
};

/// What a program can ask about the process it runs in, and about the moment: a copy that it keeps
/// is wrong in a child; of the working directory: in one that has another. Unseen are random bytes
/// that are read from a file, or more than can be kept.
enum Asked : std::uint32_t {
    kAskedProcess,
    kAskedThread,
    kAskedClock,
    kAskedRandom,
    kAskedDirectory,
    kAskedUnseen,
    kAskedKinds
};
/// What they are called where somebody reads it, in the same order.
inline constexpr const char* kAskedNames[] = {"process id",   "thread id", "time",
                                              "random bytes", "directory", "unseen random bytes"};
static_assert(std::size(kAskedNames) == kAskedKinds);

/// Where a library has called for something of this kind.
struct Asker {
    const void* address;  ///< behind the call; null: none
    std::uint32_t kinds;  ///< bit n: of Asked
};

/// Random bytes that the kernel has given, as a program got them.
struct DrawnBytes {
    const unsigned char* bytes;
    std::size_t size;
};

/// What a program has made, written to or removed, or tried to, by a path relative to the working
/// directory.
struct MadeFile {
    const char* path;  ///< absolute
    const char* name;  ///< as it was given
};

inline constexpr std::size_t kMostMade = 256;

/// As AskedForIdentity.
struct MadeFiles {
    std::uint64_t count;  ///< how often that was done
    MadeFile files[kMostMade];
    std::size_t file_count;
    bool has_all_files;
};

inline constexpr std::size_t kMostAskers = 1024;
inline constexpr std::size_t kMostDraws = 1u << 14;
inline constexpr std::size_t kMostDrawnBytes = 1u << 20;  // of one draw

/// All of it grows while reads are recorded, and stays.
struct AskedForIdentity {
    std::uint64_t counts[kAskedKinds];
    Asker askers[kMostAskers];
    DrawnBytes draws[kMostDraws];
    std::size_t draw_count;
    bool has_all_askers;
};

struct PreloadInterface {
    std::uint32_t version;
    /// The control socket, taken out of WARMFORK_CHANNEL before any other code ran; -1: none, or
    /// the process serves already, or is a child of one that does.
    int channel;
    /// Returns the same, and whoever calls this serves from now on.
    int (*take_channel)();
    /// glibc's own __register_atfork, by which libraries are recognised that are bound past the
    /// recorder.
    void* real_register_atfork;
    /// Returns the registrations in order. The pointer is good until the next registration.
    const AtforkHandlers* (*handlers)(std::size_t* ret_count);
    /// Ends the recording of reads, and returns them.
    RecordedReads (*stop_recording)();
    /// Goes on with recording, on top of what was recorded, in a forked copy of a process that has
    /// stopped.
    void (*resume_recording)();
    const AskedForIdentity* asked;
    const MadeFiles* made;
    /// Has this process asked for a filter of system calls (seccomp), or one that it was forked
    /// from?
    const bool* has_filter;
    /// Says what this thread lists directories for from now on; with 0 it does not count. Returns
    /// what it was.
    std::uint32_t (*list_for)(std::uint32_t listed);
    /// Drops the record that this directory was listed until now.
    void (*drop_listing)(const char* path);
};

using PreloadEntry = const PreloadInterface* (*)();

}  // namespace warmfork
