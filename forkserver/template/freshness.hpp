// Is the image still what preloading it again would give? This watches, with inotify, every
// directory on the way to each file that the image came from, and the file.
//
// The order that makes it strict: the owner looks first whether events are waiting, then at the
// word; this side sets the word to `checking` before it takes events away, and back to `fresh` only
// when all it took were harmless. So an owner that finds neither events nor another word than
// `fresh` knows that whatever was written before it looked has been seen here.
#pragma once

#include <atomic>
#include <map>
#include <set>
#include <string>
#include <vector>

#include "channel/descriptor.hpp"
#include "protocol/layout.hpp"
#include "template/image.hpp"

namespace warmfork {

/// Returns what of a directory would be imported under one of these names, or is read by every
/// interpreter.
[[nodiscard]] std::set<std::string> importable_names(const std::string& directory,
                                                     const std::set<std::string>& modules);

class Freshness {
  public:
    /// `inotify` is the owner's instance, non-blocking, or -1 where it could not make one. Both are
    /// borrowed.
    Freshness(int inotify, std::atomic<std::uint32_t>& word);

    /// Begins to watch. What has changed since the image took it in makes it stale at once.
    /// `before` is what the process that this one is a copy of had noted of the same image, or of
    /// the one that this is a layer on; it is null where this one has made all of it.
    void watch(const ImageFacts& facts, const Freshness* before);

    /// Must be called when `inotify` or `mounts` is ready, and before each fork. Returns false
    /// where the image is stale, for good. `is_asked` says that somebody wants to know now.
    /// Otherwise other names in a listed directory do not make it stale yet: they may be gone by
    /// the time somebody asks.
    bool check(bool is_asked = true);

    /// Must be called when `mounts` has shown a change: it shows each only once.
    void note_mounts() { mounts_changed_ = true; }

    /// Returns what has changed; empty while nothing has.
    const std::string& change() const { return change_; }
    /// Returns the descriptor that shows a change of mounts as POLLPRI, or -1 where that cannot be
    /// seen.
    int mounts() const { return mounts_.get(); }
    /// Returns why files are compared at each fork rather than watched; empty while they are
    /// watched.
    const std::string& obstacle() const { return obstacle_; }
    std::size_t file_count() const { return stamps_.size(); }
    std::size_t directory_count() const { return directories_.size(); }

  private:
    /// A directory, and the names in it that matter.
    struct Directory {
        std::string path;
        std::set<std::string> files;    ///< content and name
        std::set<std::string> links;    ///< the name only: directories and symbolic links
        std::set<std::string> modules;  ///< of any suffix that can be imported
        bool is_listed = false;         ///< which names there are
    };

    /// Where modules are looked for.
    struct Place {
        std::set<std::string> modules;
        std::optional<FileStamp> stamp;
        std::set<std::string> names;  ///< entries that could be imported as one of these, or .pth
    };

    void add_way(const std::string& path);
    Directory& directory(const std::string& path);
    void arm();
    void arm_content(const Directory& directory);
    bool take_events();
    void note_sources(const ImageFacts& facts);
    void note_listings();
    void compare_with(const Freshness& before);
    bool matters(const Directory& directory, std::uint32_t mask, const std::string& name) const;
    bool compare_files();
    bool compare_places();
    bool compare_listings();
    [[nodiscard]] std::string changed_listing() const;
    void become_stale(std::string change);

    int inotify_;
    std::atomic<std::uint32_t>& word_;
    Descriptor mounts_;
    bool mounts_changed_ = false;  ///< since the files were compared last
    std::string change_;
    std::string obstacle_;
    std::map<std::string, FileStamp> stamps_;
    std::set<std::string> absent_;  ///< was looked for
    std::map<std::string, Directory> directories_;
    std::map<std::string, Place> places_;
    std::map<std::string, Listing> listings_;
    bool listings_changed_ = false;                         ///< since they were compared last
    std::map<int, std::vector<const Directory*>> watched_;  ///< by watch descriptor
    std::map<int, std::string> watched_files_;              ///< their paths, likewise
};

}  // namespace warmfork
