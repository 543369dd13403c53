#include "owner/shadowing.hpp"

#include <sys/stat.h>
#include <time.h>

#include <filesystem>

namespace warmfork {
namespace {

namespace fs = std::filesystem;

constexpr std::size_t kMostKnown = 64;
// A directory that changed this recently may change again without showing: its time is that of the
// kernel's last tick.
constexpr std::int64_t kTooRecent = 100'000'000;

std::int64_t nanoseconds(const timespec& time) {
    return std::int64_t{time.tv_sec} * 1'000'000'000 + time.tv_nsec;
}

std::int64_t now() {
    timespec time;
    ::clock_gettime(CLOCK_REALTIME, &time);
    return nanoseconds(time);
}

bool can_be_imported(const fs::directory_entry& entry) {
    const std::string suffix = entry.path().extension();
    if (suffix == ".py" || suffix == ".pyc" || suffix == ".so") return true;
    std::error_code error;
    return suffix.empty() && entry.is_directory(error);
}

std::string search(const std::string& directory, const ShadowSearch::Names& modules) {
    std::error_code error;
    for (const fs::directory_entry& entry : fs::directory_iterator(directory, error)) {
        const std::string name = entry.path().filename();
        if (modules.count(std::string_view(name).substr(0, name.find('.'))) &&
            can_be_imported(entry))
            return entry.path();
    }
    return {};
}

}  // namespace

std::string ShadowSearch::find(const std::string& directory, pid_t image, const Names& modules) {
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
    std::string found = search(directory, modules);
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
    if (fs::is_directory(path, error)) return path;
    const fs::path real = fs::weakly_canonical(path, error);
    return error ? path.parent_path() : real.parent_path();
}

}  // namespace warmfork
