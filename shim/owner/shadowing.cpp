#include "owner/shadowing.hpp"

#include <fcntl.h>
#include <sys/stat.h>
#include <time.h>
#include <unistd.h>

#include <algorithm>
#include <cerrno>
#include <cstring>
#include <filesystem>
#include <optional>
#include <system_error>

#include "channel/descriptor.hpp"
#include "protocol/files.hpp"

namespace warmfork {
namespace {

namespace fs = std::filesystem;

constexpr std::size_t kMostKnown = 64;
// A directory that changed this recently may change again without showing: its time is that of the
// kernel's last tick.
constexpr std::int64_t kTooRecent = 100'000'000;

std::int64_t now() {
    timespec time;
    ::clock_gettime(CLOCK_REALTIME, &time);
    return nanoseconds(time);
}

/// Returns the module that `name` could be imported as, or the end of `modules` where it is none of
/// them.
ModuleFiles::const_iterator module_of(std::string_view name, bool is_directory,
                                      const ModuleFiles& modules) {
    const auto module = modules.find(name.substr(0, name.find('.')));
    const bool is_package = is_directory && name.find('.') == std::string_view::npos;
    return has_module_suffix(name) || is_package ? module : modules.end();
}

/// Is the entry what the module itself came from: the file, or the directory of a package?
bool is_origin(const fs::directory_entry& entry, bool is_directory, const std::string& file) {
    std::error_code error;
    const fs::path origin = is_directory ? fs::path(file).parent_path() : fs::path(file);
    return fs::equivalent(entry.path(), origin, error);
}

/// What the directories of a namespace package are listed under; see ModuleFiles.
std::string prefix_of_parts(const std::string& module) {
    return module + '/';
}

bool is_namespace(const std::string& module, const ModuleFiles& modules) {
    const std::string prefix = prefix_of_parts(module);
    const auto first = modules.lower_bound(prefix);
    return first != modules.end() && first->first.starts_with(prefix);
}

/// Under which name a namespace package has this directory as its own; empty: it has not.
template <typename IsSame>
std::string part_of(const std::string& module, const ModuleFiles& modules, IsSame is_same) {
    const std::string prefix = prefix_of_parts(module);
    for (auto part = modules.lower_bound(prefix);
         part != modules.end() && part->first.starts_with(prefix); ++part)
        if (is_same(part->second)) return part->first;
    return {};
}

/// Is there nothing, for whoever looks? Any other error tells nothing of what there is.
bool is_absent(const std::error_code& error) {
    return error == std::errc::no_such_file_or_directory || error == std::errc::not_a_directory;
}

/// Calls `visit` with the entries until it returns false. Returns false: not all there is has been
/// seen.
template <typename Visit>
bool visit_entries(const fs::path& directory, Visit visit) {
    std::error_code error;
    for (fs::directory_iterator entry(directory, error), end; !error && entry != end;
         entry.increment(error))
        if (!visit(*entry)) return true;
    return !error || is_absent(error);
}

/// Also where that cannot be told.
bool has_initialization(const fs::path& package) {
    bool is_found = false;
    const bool is_known = visit_entries(package, [&](const fs::directory_entry& entry) {
        is_found = entry.path().stem().string().starts_with("__init__");
        return !is_found;
    });
    return is_found || !is_known;
}

/// Adds what a directory has under the name of a module. Where that is the module itself it comes
/// first.
void add_found(FoundModules& found, const std::string& module, const std::string& path) {
    const auto [place, is_new] = found.try_emplace(module, path);
    if (!is_new && path.empty()) place->second.clear();
}

/// What cannot be listed may hold any of them; and what may be entered and not listed does, for
/// whoever knows their names.
FoundModules perhaps_all(const std::string& place, const ModuleFiles& modules) {
    FoundModules found;
    for (const auto& [module, file] : modules)
        found[module] = "perhaps a file of " + place + ", which cannot be listed,";
    return found;
}

/// Nothing: it cannot be listed.
std::optional<FoundModules> search_directory(const std::string& directory,
                                             const ModuleFiles& modules) {
    FoundModules found;
    const bool is_whole = visit_entries(directory, [&](const fs::directory_entry& entry) {
        std::error_code unknown;
        const bool is_directory = entry.is_directory(unknown);
        const auto module = module_of(entry.path().filename().string(), is_directory, modules);
        if (module == modules.end()) return true;
        if (is_origin(entry, is_directory, module->second)) {
            add_found(found, module->first, {});
            return true;
        }
        const std::string part = part_of(module->first, modules, [&](const std::string& own) {
            return fs::equivalent(entry.path(), own, unknown);
        });
        if (!part.empty()) add_found(found, part, {});
        // Without __init__ it is part of a namespace, which comes after every module.
        else if (!is_directory || is_namespace(module->first, modules) ||
                 has_initialization(entry.path()))
            add_found(found, module->first, entry.path());
        return true;
    });
    return is_whole ? std::optional(std::move(found)) : std::nullopt;
}

// The records at the end of a zip file, of APPNOTE.TXT 4.3: little-endian, as all machines this is
// for.
constexpr std::size_t kEndSize = 22, kEndDirectorySize = 12;
constexpr std::int64_t kMostEnd = kEndSize + 65535;  // with a comment of any length
constexpr std::size_t kEntrySize = 46, kEntryName = 28, kEntryExtra = 30, kEntryComment = 32;

template <typename Number>
Number number_at(std::string_view bytes, std::size_t at) {
    Number number{};
    if (at + sizeof number <= bytes.size()) std::memcpy(&number, bytes.data() + at, sizeof number);
    return number;
}

/// That much of the file, or what there is of it. Nothing: it cannot be read.
std::optional<std::string> read_part(const Descriptor& file, std::int64_t start, std::size_t size) {
    std::string part(size, '\0');
    for (std::size_t at = 0; at < size;) {
        const ssize_t more =
            ::pread(file.get(), part.data() + at, size - at, start + static_cast<std::int64_t>(at));
        if (more < 0 && errno != EINTR) return {};
        if (more == 0) part.resize(size = at);
        if (more > 0) at += static_cast<std::size_t>(more);
    }
    return part;
}

/// The directory of a zip file; empty: it is no such file, or none that a child may read. Nothing:
/// that cannot be told.
std::optional<std::string> archive_directory(const std::string& path) {
    // One that waits for a writer is no archive.
    const Descriptor file(::open(path.c_str(), O_RDONLY | O_CLOEXEC | O_NONBLOCK));
    if (!file) {
        const std::error_code error(errno, std::generic_category());
        const bool is_none = is_absent(error) || error == std::errc::permission_denied;
        return is_none ? std::optional<std::string>("") : std::nullopt;
    }
    struct stat status;
    if (::fstat(file.get(), &status) < 0) return {};
    if (!S_ISREG(status.st_mode)) return "";
    const std::int64_t tail_start = std::max<std::int64_t>(0, status.st_size - kMostEnd);
    const auto tail =
        read_part(file, tail_start, static_cast<std::size_t>(status.st_size - tail_start));
    if (!tail) return {};
    const std::size_t end = tail->rfind("PK\5\6");
    if (end == std::string::npos) return "";
    const auto directory_size = number_at<std::uint32_t>(*tail, end + kEndDirectorySize);
    const std::int64_t start = tail_start + static_cast<std::int64_t>(end) - directory_size;
    return start < 0 ? "" : read_part(file, start, directory_size);
}

/// The file of a module that came from an archive is the archive. Nothing: it cannot be read.
std::optional<FoundModules> search_archive(const std::string& path, const ModuleFiles& modules) {
    FoundModules found;
    const std::optional<std::string> directory = archive_directory(path);
    if (!directory) return {};
    std::string_view rest = *directory;
    while (rest.size() > kEntrySize) {
        const std::size_t name_size = number_at<std::uint16_t>(rest, kEntryName);
        const std::string_view name = rest.substr(kEntrySize, name_size);
        const std::size_t slash = name.find('/');
        const auto module =
            module_of(name.substr(0, slash), slash != std::string_view::npos, modules);
        if (module != modules.end()) {
            const std::string place = path + "/" + std::string(name.substr(0, slash));
            const std::string part = part_of(module->first, modules,
                                             [&](const std::string& own) { return own == place; });
            if (!part.empty())
                add_found(found, part, {});
            else
                add_found(found, module->first,
                          module->second == path ? std::string() : path + "/" + std::string(name));
        }
        rest.remove_prefix(std::min(
            rest.size(), kEntrySize + name_size + number_at<std::uint16_t>(rest, kEntryExtra) +
                             number_at<std::uint16_t>(rest, kEntryComment)));
    }
    return found;
}

}  // namespace

std::string ShadowSearch::find(std::span<const std::string> path, pid_t image,
                               const ModuleFiles& modules) {
    std::set<std::string> found_before;
    std::map<std::string, std::string> last_parts;  // of namespace packages
    for (const std::string& entry : path)
        for (const auto& [module, file] : look_into(entry, image, modules)) {
            if (!found_before.insert(module).second) continue;
            if (!file.empty()) return file;
            const std::size_t name = module.find('/');
            if (name == std::string::npos) continue;
            // What several of its directories have is taken from the first of them.
            std::string& last = last_parts[module.substr(0, name)];
            if (module < last) return modules.find(module)->second;
            last = module;
        }
    return {};
}

FoundModules ShadowSearch::look_into(const std::string& directory, pid_t image,
                                     const ModuleFiles& modules) {
    struct stat status;
    if (::stat(directory.c_str(), &status) < 0) {
        const std::error_code error(errno, std::generic_category());
        const bool is_none = is_absent(error) || error == std::errc::permission_denied ||
                             error == std::errc::too_many_symbolic_link_levels ||
                             error == std::errc::filename_too_long;
        return is_none ? FoundModules() : perhaps_all(directory, modules);
    }
    const std::int64_t changed = nanoseconds(status.st_ctim);
    {
        const std::lock_guard lock(mutex_);
        if (const auto known = known_.find(directory);
            known != known_.end() && known->second.image == image &&
            known->second.device == status.st_dev && known->second.inode == status.st_ino &&
            known->second.changed == changed)
            return known->second.found;
    }
    const std::int64_t began = now();
    const std::optional<FoundModules> seen = S_ISDIR(status.st_mode)
                                                 ? search_directory(directory, modules)
                                                 : search_archive(directory, modules);
    if (!seen) return perhaps_all(directory, modules);  // and not remembered: it may pass
    const FoundModules& found = *seen;
    const std::lock_guard lock(mutex_);
    if (known_.size() >= kMostKnown) known_.clear();
    if (changed < began - kTooRecent)
        known_[directory] = {status.st_dev, status.st_ino, changed, image, found};
    else
        known_.erase(directory);
    return found;
}

std::optional<std::string> import_directory(const std::string& base, const std::string& script) {
    std::error_code error;
    const fs::path path = fs::path(base) / script;
    if (fs::is_directory(path, error)) return path.string();
    const std::optional<std::string> archive = archive_directory(path);
    if (!archive) return {};
    if (!archive->empty()) return path.string();
    const fs::path real = fs::weakly_canonical(path, error);
    return (error ? path : real).parent_path().string();
}

}  // namespace warmfork
