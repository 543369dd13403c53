#include "template/image.hpp"

#include <link.h>
#include <sys/stat.h>
#include <time.h>
#include <unistd.h>

#include <filesystem>
#include <fstream>
#include <sstream>
#include <string_view>

#include "protocol/files.hpp"
#include "template/loader_files.hpp"

namespace warmfork {
namespace {

// Each is compared at each spawn.
constexpr std::size_t kMostNames = 256;

void add_mapped_files(ImageFacts& facts) {
    std::ifstream maps("/proc/self/maps");
    for (std::string line; std::getline(maps, line);) {
        const std::size_t path = line.find('/');
        if (path == std::string::npos || line.ends_with(" (deleted)") ||
            line.compare(path, 5, "/dev/") == 0 || line.compare(path, 7, "/memfd:") == 0)
            continue;
        facts.sources.insert(line.substr(path));
    }
}

/// Directories that were made by a path relative to the working directory, which a child in another
/// one would make there; and what was removed, or could not be made, there. What is a file now the
/// gate has to be asked about.
void add_made(const MadeFiles& made, std::set<std::string>& names) {
    const std::string here = std::filesystem::current_path().string();
    for (std::size_t i = 0; i < made.file_count; ++i) {
        const std::string path = made.files[i].path, name = made.files[i].name;
        if (path != here + '/' + name) continue;  // in a directory that it has gone to
        struct stat status;
        if (::lstat(path.c_str(), &status) < 0 || S_ISDIR(status.st_mode))
            names.insert("./" + name + "=" + path);
    }
    if (!made.has_all_files) names.insert(".=" + here);
}

/// What was read by a path relative to the working directory.
void add_names(const RecordedReads& reads, const MadeFiles& made, ImageFacts& facts) {
    std::set<std::string> names;
    const auto add = [&](const char* name, const char* path) {
        if (name && std::string_view(path).ends_with(name))
            names.insert(std::string("./") + name + "=" + path);
    };
    for (std::size_t i = 0; i < reads.file_count; ++i)
        add(reads.files[i].name, reads.files[i].path);
    for (std::size_t i = 0; i < reads.listing_count; ++i)
        if (const ListedDirectory& directory = reads.listings[i]; directory.listed != 0)
            add(directory.name, directory.path);
    add_made(made, names);
    // Too many: as if it had kept the directory itself.
    if (names.size() > kMostNames) names = {".=" + std::filesystem::current_path().string()};
    facts.shadowable.insert(names.begin(), names.end());
}

}  // namespace

std::int64_t process_start_time() {
    std::ifstream file("/proc/self/stat");
    std::string text((std::istreambuf_iterator<char>(file)), {});
    std::istringstream fields(text.substr(std::min(text.size(), text.rfind(')') + 2)));
    std::string field;
    for (int number = 3; number < 22; ++number) fields >> field;
    std::int64_t ticks = 0;
    fields >> ticks;  // field 22 of proc(5): since boot
    timespec now, since_boot;
    ::clock_gettime(CLOCK_REALTIME, &now);
    ::clock_gettime(CLOCK_BOOTTIME, &since_boot);
    const std::int64_t tick = 1'000'000'000 / ::sysconf(_SC_CLK_TCK);
    return nanoseconds(now) - nanoseconds(since_boot) + ticks * tick;
}

std::string dependence_of(std::string_view entry) {
    if (!entry.starts_with('.')) return {};
    entry = entry.substr(0, entry.find('='));
    if (!entry.starts_with("./")) entry.remove_prefix(1);
    return std::string("directory:").append(entry);
}

std::vector<std::string> dependences_of(const std::set<std::string>& shadowable) {
    std::vector<std::string> dependences;
    for (const std::string& entry : shadowable)
        if (std::string dependence = dependence_of(entry); !dependence.empty())
            dependences.push_back(std::move(dependence));
    return dependences;
}

void add_recorded_reads(const PreloadInterface& preload, ImageFacts& facts) {
    const RecordedReads reads = preload.stop_recording();
    for (std::size_t i = 0; i < reads.variable_count; ++i)
        facts.variables.insert(reads.variables[i]);
    if (!reads.has_all_variables) facts.reads_all_variables = true;
    facts.has_all_files = reads.has_all_files;
    facts.has_memory = reads.has_memory;
    facts.began = reads.resumed;
    add_names(reads, *preload.made, facts);
    for (std::size_t i = 0; i < reads.file_count; ++i) {
        const OpenedFile& file = reads.files[i];
        if (file.inode == 0) {
            // Whoever compiles first makes this one, perhaps this process; what is in it has a
            // source.
            if (!std::string_view(file.path).ends_with("/__pycache__"))
                facts.absent.insert(file.path);
        } else {
            facts.opened[file.path] =
                FileStamp{file.device, file.inode, file.size, file.modified, file.changed};
        }
    }
    for (std::size_t i = 0; i < reads.listing_count; ++i) {
        const ListedDirectory& directory = reads.listings[i];
        if (directory.listed != 0)
            facts.listings[directory.path] = {directory.listed, directory.digest};
    }
    add_mapped_files(facts);
    add_loader_files(facts);
    // They are added by the names that they were found under as well, which may be symbolic links.
    ::dl_iterate_phdr(
        [](dl_phdr_info* library, std::size_t, void* facts_) {
            if (library->dlpi_name && library->dlpi_name[0] == '/')
                static_cast<ImageFacts*>(facts_)->sources.insert(library->dlpi_name);
            return 0;
        },
        &facts);
}

}  // namespace warmfork
