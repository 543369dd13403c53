#include "owner/shadowing.hpp"

#include <sys/stat.h>
#include <time.h>

#include <algorithm>
#include <cstring>
#include <filesystem>
#include <fstream>

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

/// The module that `name` could be imported as; the end of `modules`: none of them.
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

bool has_initialization(const fs::path& package) {
    std::error_code error;
    for (const fs::directory_entry& entry : fs::directory_iterator(package, error))
        if (entry.path().stem().string().starts_with("__init__")) return true;
    return false;
}

/// Adds what a directory has under the name of a module. Where that is the module itself it comes
/// first.
void add_found(FoundModules& found, const std::string& module, const std::string& path) {
    const auto [place, is_new] = found.try_emplace(module, path);
    if (!is_new && path.empty()) place->second.clear();
}

FoundModules search_directory(const std::string& directory, const ModuleFiles& modules) {
    FoundModules found;
    std::error_code error;
    const fs::directory_iterator entries(directory, error);
    // One that may be entered and not listed holds modules for whoever knows their names.
    if (error == std::errc::permission_denied)
        for (const auto& [module, file] : modules)
            add_found(found, module,
                      "perhaps a file of " + directory + ", which may not be listed,");
    for (const fs::directory_entry& entry : entries) {
        const bool is_directory = entry.is_directory(error);
        const auto module = module_of(entry.path().filename().string(), is_directory, modules);
        if (module == modules.end()) continue;
        if (is_origin(entry, is_directory, module->second)) add_found(found, module->first, {});
        // Without __init__ it is part of a namespace, which comes after every module.
        else if (!is_directory || has_initialization(entry.path()))
            add_found(found, module->first, entry.path());
    }
    return found;
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

/// The directory of a zip file; empty: it is no such file.
std::string archive_directory(const std::string& path) {
    std::ifstream file(path, std::ios::binary | std::ios::ate);
    const auto size = static_cast<std::int64_t>(file.tellg());
    if (!file || size < static_cast<std::int64_t>(kEndSize)) return {};
    const std::int64_t tail_start = std::max<std::int64_t>(0, size - kMostEnd);
    std::string tail(static_cast<std::size_t>(size - tail_start), '\0');
    file.seekg(tail_start).read(tail.data(), static_cast<std::streamsize>(tail.size()));
    const std::size_t end = tail.rfind("PK\5\6");
    if (!file || end == std::string::npos) return {};
    const auto directory_size = number_at<std::uint32_t>(tail, end + kEndDirectorySize);
    const std::int64_t start = tail_start + static_cast<std::int64_t>(end) - directory_size;
    if (start < 0) return {};
    std::string directory(directory_size, '\0');
    file.seekg(start).read(directory.data(), static_cast<std::streamsize>(directory.size()));
    return file ? directory : std::string();
}

/// The file of a module that came from an archive is the archive.
FoundModules search_archive(const std::string& path, const ModuleFiles& modules) {
    FoundModules found;
    const std::string directory = archive_directory(path);
    std::string_view rest = directory;
    while (rest.size() > kEntrySize) {
        const std::size_t name_size = number_at<std::uint16_t>(rest, kEntryName);
        const std::string_view name = rest.substr(kEntrySize, name_size);
        const std::size_t slash = name.find('/');
        const auto module =
            module_of(name.substr(0, slash), slash != std::string_view::npos, modules);
        if (module != modules.end())
            add_found(found, module->first,
                      module->second == path ? std::string() : path + "/" + std::string(name));
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
    for (const std::string& entry : path)
        for (const auto& [module, file] : look_into(entry, image, modules))
            if (found_before.insert(module).second && !file.empty()) return file;
    return {};
}

FoundModules ShadowSearch::look_into(const std::string& directory, pid_t image,
                                     const ModuleFiles& modules) {
    struct stat status;
    if (::stat(directory.c_str(), &status) < 0) return {};
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
    FoundModules found = S_ISDIR(status.st_mode) ? search_directory(directory, modules)
                                                 : search_archive(directory, modules);
    const std::lock_guard lock(mutex_);
    if (known_.size() >= kMostKnown) known_.clear();
    if (changed < began - kTooRecent)
        known_[directory] = {status.st_dev, status.st_ino, changed, image, found};
    else
        known_.erase(directory);
    return found;
}

std::string import_directory(const std::string& base, const std::string& script) {
    std::error_code error;
    const fs::path path = fs::path(base) / script;
    if (fs::is_directory(path, error) || !archive_directory(path).empty()) return path;
    const fs::path real = fs::weakly_canonical(path, error);
    return error ? path.parent_path() : real.parent_path();
}

}  // namespace warmfork
