// Files on the import path of a child that a cold interpreter would import instead of a module that
// the image has preloaded.
#pragma once

#include <sys/types.h>

#include <cstdint>
#include <functional>
#include <map>
#include <mutex>
#include <optional>
#include <set>
#include <span>
#include <string>

namespace warmfork {

/// Modules by name, each with its file; the directories of namespace packages, as "NAME/000" etc.
using ModuleFiles = std::map<std::string, std::string, std::less<>>;

/// What a directory has under these names: another file; empty: the module's or package's own.
using FoundModules = std::map<std::string, std::string>;

class ShadowSearch {
  public:
    /// `path`: directories and zip files, in the order in which they are looked into. The first
    /// file that is found under the name of a module and is not its own, for a namespace package
    /// any more directory or another order of its own; empty: there is none. What cannot be looked
    /// into is taken to have one. `image`: which one, with its modules. Remembers what a directory
    /// has for as long as it is unchanged. Thread safe.
    [[nodiscard]] std::string find(std::span<const std::string> path, pid_t image,
                                   const ModuleFiles& modules);

  private:
    [[nodiscard]] FoundModules look_into(const std::string& directory, pid_t image,
                                         const ModuleFiles& modules);

    struct Entry {
        std::uint64_t device, inode;
        std::int64_t changed;
        pid_t image;
        FoundModules found;
    };
    std::mutex mutex_;
    std::map<std::string, Entry> known_;
};

/// The directory that a script's interpreter puts first on its import path: the script's own, links
/// resolved, or the script itself if it is a directory or a zip file. `base`: the child's
/// directory; empty: this process's. Nothing: the script cannot be read to see what it is.
[[nodiscard]] std::optional<std::string> import_directory(const std::string& base,
                                                          const std::string& script);

}  // namespace warmfork
