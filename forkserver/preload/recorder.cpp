#include "preload/recorder.hpp"

#include <fcntl.h>
#include <pthread.h>
#include <sys/mman.h>
#include <sys/stat.h>
#include <sys/syscall.h>
#include <sys/sysmacros.h>
#include <time.h>
#include <unistd.h>

#include <cerrno>
#include <cstdio>
#include <cstdlib>
#include <cstring>
#include <initializer_list>
#include <utility>

#include "channel/listing.hpp"
#include "protocol/files.hpp"

namespace warmfork::recorder {
namespace {

// This is address space; only what is written to takes memory.
constexpr std::size_t kArenaSize = 64u << 20;
// Behind it, for random bytes alone: however many are drawn, there is room for what is read.
constexpr std::size_t kDrawsSize = 16u << 20;
// Has another one whenever it is read.
constexpr const char* kFileOfIds = "/proc/sys/kernel/random/uuid";
constexpr std::size_t kMostVariables = 4096;
constexpr std::size_t kMostFiles = 1u << 17;
constexpr std::size_t kMostListings = 1u << 15;

pthread_mutex_t lock = PTHREAD_MUTEX_INITIALIZER;
pid_t recording_process = 0;
char* arena = nullptr;
std::size_t arena_used = 0;
std::size_t draws_used = 0;
bool has_all_variables = true;
bool has_all_files = true;
std::int64_t resumed = 0;

const char* variables[kMostVariables];
OpenedFile files[kMostFiles];
// No code fills this in at the start of each process, which would write to all of it.
constinit ListedDirectory listings[kMostListings]{};
std::size_t variable_count = 0;
std::size_t file_count = 0;
std::size_t listing_count = 0;

/// A hash table of numbers into a list, from 1 on. It grows with the list, so that it lies on few
/// pages, and is never full. All of it is zero at first.
template <std::size_t most>
struct Slots {
    static constexpr std::size_t kFirst = 1024;
    static_assert(2 * most >= kFirst);

    std::uint32_t numbers[2 * most];
    std::size_t doublings;

    std::size_t size() const { return kFirst << doublings; }
    bool is_to_grow(std::size_t count) const {
        return 2 * (count + 1) > size() && size() < 2 * most;
    }
};
Slots<kMostVariables> variable_slots;
Slots<kMostFiles> file_slots;
Slots<kMostListings> listing_slots;
// It is of the initial-exec kind, so that nothing is allocated for it.
__attribute__((tls_model("initial-exec"))) thread_local std::uint32_t lists_for = kListedNames;
AskedForIdentity noted{{}, {}, {}, 0, true};
MadeFiles made_files{0, {}, 0, true};
bool is_filtered = false;

/// Does not call libc's own, which is interposed, and notes who calls it.
pid_t own_process() {
    return static_cast<pid_t>(recorder::system_call(SYS_getpid));
}

std::size_t hash(const char* text) {
    std::uint64_t value = 14695981039346656037u;  // FNV-1a
    for (; *text; ++text) value = (value ^ static_cast<unsigned char>(*text)) * 1099511628211u;
    return static_cast<std::size_t>(value ^ value >> 32);
}

/// Returns a copy that stays, or null where there is no room.
const char* copy_text(const char* text) {
    const std::size_t size = std::strlen(text) + 1;
    if (!arena || size > kArenaSize - arena_used) return nullptr;
    char* kept = arena + arena_used;
    std::memcpy(kept, text, size);
    arena_used += size;
    return kept;
}

/// Returns the number of `text` in a list, or 0 with `ret_slot` set where it is not there.
template <std::size_t most, typename TextOf>
std::size_t find(const char* text, const Slots<most>& slots, TextOf text_of,
                 std::size_t& ret_slot) {
    std::size_t slot = hash(text) % slots.size();
    for (; slots.numbers[slot] != 0; slot = (slot + 1) % slots.size())
        if (std::strcmp(text_of(slots.numbers[slot] - 1u), text) == 0) return slots.numbers[slot];
    ret_slot = slot;
    return 0;
}

/// Puts the last one of a list of `count` in the place that `find` has given.
template <std::size_t most, typename TextOf>
void add_number(Slots<most>& slots, std::size_t slot, std::size_t count, TextOf text_of) {
    slots.numbers[slot] = static_cast<std::uint32_t>(count);
    if (!slots.is_to_grow(count)) return;
    std::memset(slots.numbers, 0, slots.size() * sizeof slots.numbers[0]);
    ++slots.doublings;
    for (std::size_t i = 0; i < count; ++i) {
        static_cast<void>(find(text_of(i), slots, text_of, slot));
        slots.numbers[slot] = static_cast<std::uint32_t>(i + 1);
    }
}

const char* text_of_variable(std::size_t i) {
    return variables[i];
}

const char* path_of_file(std::size_t i) {
    return files[i].path;
}

const char* path_of_listing(std::size_t i) {
    return listings[i].path;
}

/// Makes a path that goes through an open descriptor, or the working directory, by a link of the
/// kernel's one that is relative to it.
void leave_links_of_the_kernel(int& directory, const char*& path) {
    for (const char* prefix : {"/proc/self/fd/", "/proc/thread-self/fd/", "/dev/fd/"}) {
        const std::size_t size = std::strlen(prefix);
        if (std::strncmp(path, prefix, size) != 0) continue;
        char* rest = nullptr;
        const long number = std::strtol(path + size, &rest, 10);
        if (rest == path + size || (*rest != '/' && *rest != '\0')) return;
        directory = static_cast<int>(number);
        path = rest + std::strspn(rest, "/");
        return;
    }
    constexpr char kHere[] = "/proc/self/cwd/";
    if (std::strncmp(path, kHere, sizeof kHere - 1) != 0) return;
    directory = AT_FDCWD;
    path += sizeof kHere - 1;
}

/// Makes the full path, of the directory itself where `path` is empty. Returns false where it does
/// not fit.
bool make_absolute(int directory, const char* path, char (&ret_path)[4096]) {
    char link[32];
    ssize_t size = 0;
    leave_links_of_the_kernel(directory, path);
    if (path[0] != '/') {
        if (directory == AT_FDCWD)
            std::strcpy(link, "/proc/self/cwd");
        else
            std::snprintf(link, sizeof link, "/proc/self/fd/%d", directory);
        size = ::readlink(link, ret_path, sizeof ret_path - 1);
        if (size <= 0 || ret_path[0] != '/') return false;
        if (path[0]) ret_path[size++] = '/';
    }
    const std::size_t rest = std::strlen(path) + 1;
    if (rest > sizeof ret_path - static_cast<std::size_t>(size)) return false;
    std::memcpy(ret_path + size, path, rest);
    return true;
}

/// Returns the path itself where what it leads to depends on the working directory, or else null.
const char* name_in_directory(int directory, const char* path) {
    leave_links_of_the_kernel(directory, path);
    if (directory != AT_FDCWD || path[0] == '/') return nullptr;
    return path[0] ? path : ".";
}

bool is_of_the_kernel(const char* path) {
    for (const char* prefix : {"/proc/", "/sys/", "/dev/"})
        if (std::strncmp(path, prefix, std::strlen(prefix)) == 0) return true;
    return false;
}

/// Is it /dev/random, /dev/urandom or /dev/hwrng, by whatever name, or the kernel's file of ids?
bool gives_random_bytes(int directory, const char* path, const struct stat& status) {
    if (S_ISCHR(status.st_mode)) {
        for (const dev_t device : {makedev(1, 8), makedev(1, 9), makedev(10, 183)})
            if (status.st_rdev == device) return true;
        return false;
    }
    char absolute[4096];
    return make_absolute(directory, path, absolute) && std::strcmp(absolute, kFileOfIds) == 0;
}

/// Adds the name of what is known by a full path already.
void add_name(const char*& kept, const char* name) {
    if (!name || kept) return;
    kept = copy_text(name);
    if (!kept) has_all_files = false;
}

/// Adds a file. `name` is its name in the working directory, or null.
void add_file(const char* path, const char* name, const struct stat& status) {
    std::size_t slot = 0;
    if (const std::size_t known = find(path, file_slots, path_of_file, slot)) {
        add_name(files[known - 1].name, name);
        return;
    }
    const char* kept = file_count < kMostFiles ? copy_text(path) : nullptr;
    if (!kept) {
        has_all_files = false;
        return;
    }
    files[file_count++] = {kept,
                           status.st_dev,
                           status.st_ino,
                           status.st_size,
                           nanoseconds(status.st_mtim),
                           nanoseconds(status.st_ctim),
                           nullptr};
    add_number(file_slots, slot, file_count, path_of_file);
    add_name(files[file_count - 1].name, name);
}

void add_listing(const char* path, const char* name, const ListingDigest& digest) {
    std::size_t slot;
    if (const std::size_t known = find(path, listing_slots, path_of_listing, slot)) {
        // Where listing it did not count so far, it is taken as it is now.
        ListedDirectory& listing = listings[known - 1];
        if (listing.listed == 0) listing.digest = digest;
        listing.listed |= lists_for;
        add_name(listing.name, name);
        return;
    }
    const char* kept = listing_count < kMostListings ? copy_text(path) : nullptr;
    if (!kept) {
        has_all_files = false;
        return;
    }
    listings[listing_count++] = {kept, lists_for, digest, nullptr};
    add_number(listing_slots, slot, listing_count, path_of_listing);
    add_name(listings[listing_count - 1].name, name);
}

void add_made(const char* path, const char* name) {
    ++made_files.count;
    for (std::size_t i = 0; i < made_files.file_count; ++i)
        if (std::strcmp(made_files.files[i].path, path) == 0) return;
    const char* kept_path = made_files.file_count < kMostMade ? copy_text(path) : nullptr;
    const char* kept_name = kept_path ? copy_text(name) : nullptr;
    if (kept_name)
        made_files.files[made_files.file_count++] = {kept_path, kept_name};
    else
        made_files.has_all_files = false;
}

}  // namespace

void start() {
    void* memory = ::mmap(nullptr, kArenaSize + kDrawsSize, PROT_READ | PROT_WRITE,
                          MAP_PRIVATE | MAP_ANONYMOUS | MAP_NORESERVE, -1, 0);
    arena = memory == MAP_FAILED ? nullptr : static_cast<char*>(memory);
    recording_process = own_process();
}

RecordedReads stop() {
    ::pthread_mutex_lock(&lock);
    recording_process = 0;
    ::pthread_mutex_unlock(&lock);
    return {variables,     variable_count,    files,         file_count,       listings,
            listing_count, has_all_variables, has_all_files, arena != nullptr, resumed};
}

void resume() {
    timespec now;
    ::clock_gettime(CLOCK_REALTIME_COARSE, &now);  // by which files are stamped
    ::pthread_mutex_lock(&lock);
    resumed = nanoseconds(now);
    recording_process = own_process();
    ::pthread_mutex_unlock(&lock);
}

bool is_recording() {
    return recording_process != 0 && recording_process == own_process();
}

void note_variable(const char* name) {
    if (!name) return;
    ::pthread_mutex_lock(&lock);
    std::size_t slot = 0;
    if (find(name, variable_slots, text_of_variable, slot) == 0) {
        const char* kept = variable_count < kMostVariables ? copy_text(name) : nullptr;
        if (kept) {
            variables[variable_count++] = kept;
            add_number(variable_slots, slot, variable_count, text_of_variable);
        } else {
            has_all_variables = false;
        }
    }
    ::pthread_mutex_unlock(&lock);
}

void note_file(int directory, const char* path, const struct stat* status) {
    const int error = errno;
    const struct stat absent {};
    char absolute[4096];
    if ((!status || S_ISREG(status->st_mode)) && make_absolute(directory, path, absolute) &&
        !is_of_the_kernel(absolute)) {
        ::pthread_mutex_lock(&lock);
        add_file(absolute, name_in_directory(directory, path), status ? *status : absent);
        ::pthread_mutex_unlock(&lock);
    }
    errno = error;
}

void note_made(int directory, const char* path) {
    const int error = errno;
    const char* name = path ? name_in_directory(directory, path) : nullptr;
    char absolute[4096];
    if (name && !std::strstr(name, "__pycache__") && make_absolute(directory, path, absolute)) {
        ::pthread_mutex_lock(&lock);
        add_made(absolute, name);
        ::pthread_mutex_unlock(&lock);
    }
    errno = error;
}

const MadeFiles* made() {
    return &made_files;
}

void note_listing(int directory, const char* path, int descriptor) {
    const int error = errno;
    char absolute[4096];
    struct stat status;
    // A directory in which everybody may leave something is one of temporary files.
    constexpr mode_t kForEverybody = S_ISVTX | S_IWOTH;
    if (lists_for != 0 && make_absolute(directory, path, absolute) && !is_of_the_kernel(absolute) &&
        ::fstat(descriptor, &status) == 0 && (status.st_mode & kForEverybody) != kForEverybody) {
        ListingDigest digest;
        const bool is_read = read_listing(descriptor, digest);
        ::pthread_mutex_lock(&lock);
        if (is_read)
            add_listing(absolute, name_in_directory(directory, path), digest);
        else
            has_all_files = false;
        ::pthread_mutex_unlock(&lock);
    }
    errno = error;
}

std::uint32_t list_for(std::uint32_t listed) {
    return std::exchange(lists_for, listed);
}

void drop_listing(const char* path) {
    ::pthread_mutex_lock(&lock);
    std::size_t slot;
    if (const std::size_t known = find(path, listing_slots, path_of_listing, slot))
        listings[known - 1].listed = 0;
    ::pthread_mutex_unlock(&lock);
}

void note_asked(Asked kind, const void* caller) {
    __atomic_add_fetch(&noted.counts[kind], 1, __ATOMIC_RELAXED);
    const std::uint32_t bit = 1u << kind;
    auto place = reinterpret_cast<std::uintptr_t>(caller) / 4;
    for (std::size_t tries = 0; tries < kMostAskers; ++tries, ++place) {
        Asker& asker = noted.askers[place % kMostAskers];
        const void* before = nullptr;
        if (__atomic_compare_exchange_n(&asker.address, &before, caller, false, __ATOMIC_RELAXED,
                                        __ATOMIC_RELAXED) ||
            before == caller) {
            __atomic_or_fetch(&asker.kinds, bit, __ATOMIC_RELAXED);
            return;
        }
    }
    noted.has_all_askers = false;
}

void note_random(const void* bytes, std::size_t size, const void* caller) {
    note_asked(kAskedRandom, caller);
    ::pthread_mutex_lock(&lock);
    const bool fits = arena && size <= kMostDrawnBytes && size <= kDrawsSize - draws_used &&
                      noted.draw_count < kMostDraws;
    if (fits) {
        auto* kept = reinterpret_cast<unsigned char*>(arena + kArenaSize + draws_used);
        std::memcpy(kept, bytes, size);
        draws_used += size;
        noted.draws[noted.draw_count++] = {kept, size};
    }
    ::pthread_mutex_unlock(&lock);
    if (!fits) note_asked(kAskedUnseen, caller);
}

void note_opened(int directory, const char* path, const struct stat& status, const void* caller) {
    const int error = errno;
    const bool is_random = gives_random_bytes(directory, path, status);
    errno = error;
    if (!is_random) return;
    note_asked(kAskedRandom, caller);
    note_asked(kAskedUnseen, caller);
}

const AskedForIdentity* asked() {
    return &noted;
}

void note_filter() {
    is_filtered = true;
}

const bool* has_filter() {
    return &is_filtered;
}

}  // namespace warmfork::recorder
