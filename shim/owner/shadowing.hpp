// Files in the directory of a script that a cold interpreter would import instead of a module that
// the image has preloaded.
#pragma once

#include <sys/types.h>

#include <cstdint>
#include <functional>
#include <map>
#include <mutex>
#include <string>

namespace warmfork {

/// Modules by name, each with the file that it came from.
using ModuleFiles = std::map<std::string, std::string, std::less<>>;

class ShadowSearch {
  public:
    /// `directory`: or a zip file. The file's path, or empty: there is none. `image`: which one,
    /// with its modules. Remembers what it found for as long as the directory is unchanged. Thread
    /// safe.
    [[nodiscard]] std::string find(const std::string& directory, pid_t image,
                                   const ModuleFiles& modules);

  private:
    struct Entry {
        std::uint64_t device, inode;
        std::int64_t changed;
        pid_t image;
        std::string found;
    };
    std::mutex mutex_;
    std::map<std::string, Entry> known_;
};

/// The directory that a script's interpreter puts first on its import path: the script's own, links
/// resolved, or the script itself if it is a directory or a zip file. `base`: the child's
/// directory; empty: this process's.
[[nodiscard]] std::string import_directory(const std::string& base, const std::string& script);

}  // namespace warmfork
