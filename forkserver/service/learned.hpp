// What templates have learned of their children's imports, as they leave it in files:
// protocol/README.md draws these.
#pragma once

#include <cstdint>
#include <functional>
#include <map>
#include <string>
#include <vector>

namespace warmfork::service {

struct LearnedModule {
    std::string name;
    std::uint64_t microseconds = 0;  ///< that its import takes a child
    std::uint64_t kilobytes = 0;     ///< that it takes an image
};

struct RefusedModule {
    std::string name, reason;
};

/// The youngest image of a program.
struct LearnedImage {
    std::string folder;
    std::vector<LearnedModule> modules;
    std::vector<RefusedModule> refused;
};

/// Returns $XDG_STATE_HOME/warmfork/learned, or the same in ~/.local/state.
[[nodiscard]] std::string learned_folder();

/// Returns what lies in such a folder, by the names of programs, or of templates. Blocks on the
/// disk; what cannot be read, or somebody else could have written, is passed over.
[[nodiscard]] std::map<std::string, LearnedImage, std::less<>> read_learned(
    const std::string& folder);

/// What children of a program have reported.
enum class Reports { none, empty, some };  ///< empty: none of them had to import anything

/// Blocks on the disk.
[[nodiscard]] Reports reports_of(const LearnedImage& image);

}  // namespace warmfork::service
