#include "template/freshness.hpp"

#include <fcntl.h>
#include <fmt/format.h>
#include <linux/magic.h>
#include <poll.h>
#include <sys/inotify.h>
#include <sys/ioctl.h>
#include <sys/stat.h>
#include <sys/vfs.h>
#include <unistd.h>

#include <algorithm>
#include <array>
#include <chrono>
#include <cstring>
#include <filesystem>
#include <thread>

#include "channel/listing.hpp"
#include "protocol/files.hpp"

namespace warmfork {
namespace {

namespace fs = std::filesystem;

constexpr std::uint32_t kNamesMask = IN_CREATE | IN_DELETE | IN_MOVED_FROM | IN_MOVED_TO |
                                     IN_DELETE_SELF | IN_MOVE_SELF | IN_ONLYDIR;
constexpr std::uint32_t kContentMask = IN_MODIFY | IN_CLOSE_WRITE;
// What happens to the directory itself. Its parent, which is watched too, has it by name.
constexpr std::uint32_t kLostMask = IN_DELETE_SELF | IN_MOVE_SELF | IN_UNMOUNT | IN_IGNORED;

constexpr int kMostLinks = 40;  // the kernel follows as many

// Every interpreter reads it where it lies in a directory of packages.
constexpr std::string_view kStartFile = ".pth";

// These are from linux/magic.h, and of file systems that it does not know. Changes made on another
// machine, or by a process behind the file system, raise no event.
constexpr std::array<long, 17> kUnwatchable{NFS_SUPER_MAGIC,
                                            SMB_SUPER_MAGIC,
                                            CIFS_SUPER_MAGIC,
                                            SMB2_SUPER_MAGIC,
                                            V9FS_MAGIC,
                                            AFS_SUPER_MAGIC,
                                            AFS_FS_MAGIC,
                                            CODA_SUPER_MAGIC,
                                            OCFS2_SUPER_MAGIC,
                                            FUSE_SUPER_MAGIC,
                                            HOSTFS_SUPER_MAGIC,
                                            CEPH_SUPER_MAGIC,
                                            0x01161970 /* GFS2 */,
                                            0x47504653 /* GPFS */,
                                            0x0bd00bd0 /* Lustre */,
                                            0x786f4256 /* VirtualBox */,
                                            0xbacbacbc /* VMware */};

/// Is this what an interpreter keeps of a source beside it (PEP 3147), whoever has asked for it?
bool is_compiled_cache(const std::string& path) {
    return path.ends_with(".pyc") && path.find("/__pycache__/") != std::string::npos;
}

bool can_be_imported(const std::string& name) {
    const bool may_be_package = name.find('.') == std::string::npos;
    return may_be_package || has_module_suffix(name);
}

bool is_on_unwatchable_file_system(const std::string& path) {
    struct statfs status;
    if (::statfs(path.c_str(), &status) < 0) return false;
    for (long type : kUnwatchable)
        if (static_cast<long>(status.f_type) == type) return true;
    return false;
}

bool is_module_of(const std::set<std::string>& modules, const std::string& name) {
    return modules.count(name.substr(0, name.find('.'))) && can_be_imported(name);
}

/// Would this entry of a directory of packages be imported under one of these names, or be read by
/// every interpreter?
bool is_read_from_place(const std::set<std::string>& modules, const std::string& name) {
    return is_module_of(modules, name) || (!modules.empty() && name.ends_with(kStartFile));
}

/// Returns the stamp if an equal one can be relied on to mean an equal file, otherwise one that
/// equals none.
std::optional<FileStamp> settled(std::optional<FileStamp> stamp) {
    return stamp && may_change_unseen(stamp->changed) ? FileStamp{} : stamp;
}

/// Returns nothing where it is not there, or cannot be read.
std::optional<ListingDigest> digest_of(const std::string& path) {
    const Descriptor directory(::open(path.c_str(), O_RDONLY | O_DIRECTORY | O_CLOEXEC));
    ListingDigest digest;
    if (!directory || !read_listing(directory.get(), digest)) return {};
    return digest;
}

bool events_wait(int inotify) {
    int size = 0;
    return ::ioctl(inotify, FIONREAD, &size) < 0 || size > 0;
}

}  // namespace

std::set<std::string> importable_names(const std::string& directory,
                                       const std::set<std::string>& modules) {
    std::set<std::string> names;
    std::error_code error;
    for (const auto& entry : fs::directory_iterator(directory, error))
        if (const std::string name = entry.path().filename(); is_read_from_place(modules, name))
            names.insert(name);
    return names;
}

Freshness::Freshness(int inotify, std::atomic<std::uint32_t>& word)
    : inotify_(inotify),
      word_(word),
      mounts_(::open("/proc/self/mountinfo", O_RDONLY | O_CLOEXEC)) {
    if (inotify_ < 0)
        obstacle_ = "no inotify instance was to be had (fs.inotify.max_user_instances)";
}

Freshness::Directory& Freshness::directory(const std::string& path) {
    Directory& found = directories_[path];
    found.path = path;
    return found;
}

/// Adds every directory in which something on the way to `path` could be put in its place. Symbolic
/// links are followed as the kernel does, name by name.
void Freshness::add_way(const std::string& path) {
    fs::path done = "/";
    std::vector<fs::path> rest;
    const auto add_names = [&](const fs::path& names) {
        std::vector<fs::path> parts(names.begin(), names.end());
        for (auto part = parts.rbegin(); part != parts.rend(); ++part)
            if (*part != "/" && !part->empty() && *part != ".") rest.push_back(*part);
    };
    add_names(path);
    for (int links = 0; !rest.empty();) {
        const fs::path name = rest.back();
        rest.pop_back();
        if (name == "..") {
            done = done.parent_path();
            continue;
        }
        std::error_code error;
        const fs::path here = done / name;
        Directory& parent = directory(done.string());
        if (fs::is_symlink(here, error)) {
            parent.links.insert(name.string());
            if (++links > kMostLinks) return;
            const fs::path target = fs::read_symlink(here, error);
            if (target.is_absolute()) done = "/";
            add_names(target);
        } else {
            (rest.empty() ? parent.files : parent.links).insert(name.string());
            done = here;
        }
    }
}

void Freshness::watch(const ImageFacts& facts, const Freshness* before) {
    word_.store(kFreshnessChecking);
    for (const auto& [path, stamp] : facts.opened) add_way(path);
    for (const auto* paths : {&facts.absent, &facts.sources, &facts.caches})
        for (const std::string& path : *paths) add_way(path);
    for (const auto& [path, modules] : facts.places) {
        add_way(path);
        std::error_code error;
        const fs::path real = fs::canonical(path, error);
        if (!error && fs::is_directory(real, error))
            directory(real.string()).modules.insert(modules.begin(), modules.end());
    }
    listings_ = facts.listings;
    for (const auto& [path, listing] : listings_) {
        add_way(path);
        std::error_code error;
        const fs::path real = fs::canonical(path, error);
        if (!error) directory(real.string()).is_listed = true;
    }
    for (const auto& [path, directory] : directories_)
        if (obstacle_.empty() && is_on_unwatchable_file_system(path))
            obstacle_ = path + " is on a file system whose changes cannot be watched";
    if (obstacle_.empty()) arm();

    // They are noted only now, so that whatever changes from here on is seen.
    note_sources(facts);
    for (const auto& [path, modules] : facts.places)
        places_[path] = {modules, settled(stamp_of(path)), importable_names(path, modules)};
    note_listings();
    if (before) compare_with(*before);
    // Whatever is changed from here on has another stamp, also for a copy of this process, which
    // does not get the events.
    if (std::any_of(stamps_.begin(), stamps_.end(),
                    [](const auto& stamp) { return may_change_unseen(stamp.second.changed); }))
        std::this_thread::sleep_for(std::chrono::nanoseconds(kTick));
    if (mounts_) {
        pollfd polled{mounts_.get(), POLLPRI, 0};
        ::poll(&polled, 1, 0);  // the first look tells of every change before it
    }
    if (change_.empty()) check();
}

/// Compares what is there now with what the image took in.
void Freshness::note_sources(const ImageFacts& facts) {
    const auto is_changed = [this](const std::string& path) {
        become_stale(path + " was changed while it was preloaded");
    };
    if (!facts.has_all_files) become_stale("more files were read than can be watched");
    for (const std::string& path : facts.absent) {
        if (facts.caches.count(path) || path.ends_with(".pyc")) continue;
        absent_.insert(path);
        if (stamp_of(path)) is_changed(path);
    }
    const std::int64_t made_since = (facts.began ? facts.began : process_start_time()) - kTick;
    for (const std::string& path : facts.sources) {
        const std::optional<FileStamp> now = stamp_of(path);
        if (now) stamps_.emplace(path, *now);
        if (!now || (!facts.opened.count(path) && now->changed >= made_since)) is_changed(path);
    }
    for (const auto& [path, opened] : facts.opened) {
        const std::optional<FileStamp> now = stamp_of(path);
        if (!now) continue;  // a temporary file; what is missed of the others is a source
        stamps_.emplace(path, *now);
        // A cache that was out of date has been written anew from the source, which is watched too.
        const bool is_cache = facts.caches.count(path) || is_compiled_cache(path);
        if (*now != opened && !is_cache) is_changed(path);
    }
    for (const std::string& path : facts.caches)
        if (const std::optional<FileStamp> now = stamp_of(path)) stamps_.emplace(path, *now);
}

void Freshness::note_listings() {
    // These were preloading's own, which has removed them.
    std::erase_if(listings_, [](const auto& listing) { return !stamp_of(listing.first); });
    compare_listings();
}

/// Looks for what has changed since then, as nobody has watched for this process.
void Freshness::compare_with(const Freshness& before) {
    if (!before.change_.empty()) become_stale(before.change_);
    for (const auto& [path, stamp] : before.stamps_) {
        const auto now = stamps_.find(path);
        if (now == stamps_.end() || now->second != stamp) become_stale(path + " has changed");
    }
    for (const auto& [path, place] : before.places_) {
        // A layer may look for more modules there.
        const Place& now = places_[path];
        const bool is_same =
            (now.modules == place.modules ? now.names : importable_names(path, place.modules)) ==
            place.names;
        if (!is_same) become_stale(path + " holds other modules now");
    }
}

void Freshness::arm() {
    for (const auto& [path, directory] : directories_) {
        const std::uint32_t attributes = directory.files.empty() ? 0 : IN_ATTRIB;
        const int watch =
            ::inotify_add_watch(inotify_, path.c_str(), kNamesMask | attributes | IN_MASK_ADD);
        if (watch >= 0) {
            watched_[watch].push_back(&directory);
        } else if (errno != ENOENT && errno != ENOTDIR) {
            // A directory that is not there shows by its name in its parent.
            obstacle_ = fmt::format("cannot watch {}: {}{}", path, std::strerror(errno),
                                    errno == ENOSPC ? " (fs.inotify.max_user_watches)" : "");
            return;
        }
    }
    // This comes after the names: a file that is replaced meanwhile shows by its name.
    for (const auto& [path, directory] : directories_) arm_content(directory);
}

/// Watches each file by itself, so that nothing is heard of others that are written beside them,
/// such as a log, in which each line would send the next spawn to the template.
void Freshness::arm_content(const Directory& directory) {
    for (const std::string& name : directory.files) {
        std::string path = (fs::path(directory.path) / name).string();
        std::error_code error;
        if (fs::is_directory(path, error)) continue;  // a file may be one to imports: an archive
        const int watch = ::inotify_add_watch(inotify_, path.c_str(), kContentMask | IN_MASK_ADD);
        if (watch >= 0) {
            watched_files_[watch] = std::move(path);
        } else if (errno != ENOENT && errno != ENOTDIR) {
            // No more watches are to be had, or it may not be read: the directory's own does for
            // all of them. What is not there shows by its name.
            ::inotify_add_watch(inotify_, directory.path.c_str(), kContentMask | IN_MASK_ADD);
            return;
        }
    }
}

bool Freshness::matters(const Directory& directory, std::uint32_t mask,
                        const std::string& name) const {
    if (directory.files.count(name)) return true;
    if (!(mask & kNamesMask)) return false;
    return directory.links.count(name) || is_read_from_place(directory.modules, name);
}

/// Takes away what waits. Returns false where the image is stale.
bool Freshness::take_events() {
    alignas(inotify_event) std::array<char, 64u << 10> buffer;
    while (true) {
        const ssize_t size = ::read(inotify_, buffer.data(), buffer.size());
        if (size < 0 && errno == EINTR) continue;
        if (size <= 0) return true;
        for (const char* at = buffer.data(); at < buffer.data() + size;) {
            inotify_event event;
            std::memcpy(&event, at, sizeof event);
            const std::string name(event.len ? at + sizeof event : "");
            at += sizeof event + event.len;
            if (event.mask & IN_Q_OVERFLOW) {
                become_stale("more has changed than the kernel could note");
                return false;
            }
            if (const auto file = watched_files_.find(event.wd);
                file != watched_files_.end() && event.len == 0 && (event.mask & kContentMask)) {
                become_stale(file->second + " has changed");
                return false;
            }
            for (const Directory* directory : watched_[event.wd]) {
                if (event.mask & kLostMask)
                    become_stale(directory->path + " was moved or removed");
                else if (matters(*directory, event.mask, name))
                    become_stale((fs::path(directory->path) / name).string() + " has changed");
                else if (directory->is_listed && (event.mask & kNamesMask))
                    listings_changed_ = listings_changed_ || counts_in_listing(name);
                if (!change_.empty()) return false;
            }
        }
    }
}

bool Freshness::compare_files() {
    const auto is_changed = [this](const std::string& path) {
        become_stale(path + " has changed");
        return false;
    };
    for (const auto& [path, stamp] : stamps_)
        if (stamp_of(path) != stamp) return is_changed(path);
    for (const std::string& path : absent_)
        if (stamp_of(path)) return is_changed(path);
    return true;
}

bool Freshness::compare_places() {
    for (auto& [path, place] : places_) {
        const std::optional<FileStamp> now = stamp_of(path);
        if (now == place.stamp) continue;
        place.stamp = settled(now);
        if (importable_names(path, place.modules) != place.names) {
            become_stale(path + " holds other modules now");
            return false;
        }
    }
    return true;
}

/// Returns a directory that has other names now than when it was listed, or an empty text where
/// there is none. What has come and gone does no harm.
std::string Freshness::changed_listing() const {
    for (const auto& [path, listing] : listings_) {
        const std::optional<ListingDigest> now = digest_of(path);
        if (!now || !now->is_same(listing.digest, listing.listed)) return path;
    }
    return {};
}

bool Freshness::compare_listings() {
    const std::string path = changed_listing();
    if (!path.empty()) become_stale(path + ", which was listed, holds other names now");
    listings_changed_ = false;
    return path.empty();
}

bool Freshness::check(bool is_asked) {
    if (!change_.empty()) return false;
    if (!obstacle_.empty()) {
        word_.store(kFreshnessCompared);
        return compare_files() && compare_places() && compare_listings();
    }
    pollfd polled{mounts_.get(), POLLPRI, 0};
    if (::poll(&polled, 1, 0) > 0 && (polled.revents & POLLPRI)) note_mounts();
    if (word_.load() == kFreshnessFresh && !mounts_changed_ && !events_wait(inotify_)) return true;
    word_.store(kFreshnessChecking);
    if (!take_events()) return false;
    if (mounts_changed_ && (!compare_files() || !compare_places())) return false;
    listings_changed_ = listings_changed_ || mounts_changed_;
    mounts_changed_ = false;
    if (listings_changed_ && !is_asked && !changed_listing().empty()) return true;
    if (listings_changed_ && !compare_listings()) return false;
    word_.store(kFreshnessFresh);
    return true;
}

void Freshness::become_stale(std::string change) {
    change_ = std::move(change);
    word_.store(kFreshnessStale);
}

}  // namespace warmfork
