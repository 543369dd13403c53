#include "service/configuration_files.hpp"

#include <fcntl.h>
#include <fmt/format.h>
#include <sys/stat.h>
#include <unistd.h>

#include <algorithm>
#include <array>
#include <cerrno>
#include <cstring>
#include <filesystem>

#include "channel/descriptor.hpp"
#include "channel/trusted_path.hpp"
#include "service/configuration_values.hpp"

namespace warmfork::service {
namespace {

namespace fs = std::filesystem;
using Errors = std::vector<ConfigurationError>;

constexpr std::string_view kEnding = ".toml", kDropInEnding = ".conf", kDropInFolder = ".toml.d";
constexpr std::size_t kLongestName = 64;
// More is no configuration. Also, the parser takes stack for each part of a dotted key, and allows
// any number of parts; for as many as fit in here it takes less than 4 of the usual 8 MB.
constexpr std::size_t kLargestFile = 64u << 10;

/// Lists the names in a directory, without hidden ones. One that does not exist is empty. Returns
/// false, with an error added, where it cannot be listed, or others may write to it.
bool list(const std::string& directory, const std::string& template_name,
          std::vector<std::string>& ret_names, Errors& errors) {
    if (const std::string why = distrust(directory); !why.empty()) {
        errors.push_back({{directory}, "this directory is not read: " + why, template_name});
        return false;
    }
    std::vector<std::string> names;
    std::error_code error;
    fs::directory_iterator entry(directory, error);
    for (; !error && entry != fs::directory_iterator(); entry.increment(error))
        if (std::string name = entry->path().filename(); !name.starts_with('.'))
            names.push_back(std::move(name));
    if (error && error != std::errc::no_such_file_or_directory) {
        errors.push_back({{directory},
                          "the files in this directory cannot be listed: " + error.message(),
                          template_name});
        return false;
    }
    ret_names = std::move(names);
    return true;
}

/// Is it empty, or /dev/null? What cannot be looked at is found out by reading it.
bool is_mask(const std::string& file) {
    struct stat status;
    if (::stat(file.c_str(), &status) < 0) return false;
    return S_ISCHR(status.st_mode) || (S_ISREG(status.st_mode) && status.st_size == 0);
}

bool exists(const std::string& file) {
    struct stat status;
    return ::lstat(file.c_str(), &status) == 0;  // a link to nothing is an error, not nothing
}

/// Returns the drop-ins for `file_name` in all folders.
std::vector<std::string> find_drop_ins(const std::vector<std::string>& folders,
                                       const std::string& file_name,
                                       const std::string& template_name, Errors& errors) {
    std::map<std::string, std::string> by_name;
    for (const std::string& folder : folders) {
        const std::string directory = folder + "/" + file_name + ".d";
        std::vector<std::string> names;
        if (!list(directory, template_name, names, errors)) continue;
        for (const std::string& name : names)
            if (name.ends_with(kEnding) || name.ends_with(kDropInEnding))
                by_name[name] = directory + "/" + name;
    }
    std::vector<std::string> files;
    for (const auto& [name, file] : by_name)
        if (!is_mask(file)) files.push_back(file);
    return files;
}

FileSet find_files(const std::vector<std::string>& folders, const std::string& file_name,
                   const std::string& template_name, Errors& errors) {
    FileSet files;
    for (const std::string& folder : folders)
        if (const std::string file = folder + "/" + file_name; exists(file)) files.file = file;
    files.is_masked = is_mask(files.file);
    files.drop_ins = find_drop_ins(folders, file_name, template_name, errors);
    return files;
}

/// Reads all that is left in an open file. Returns 0 or errno.
int read_text(int descriptor, std::size_t most, std::string& ret_text) {
    std::string text;
    std::array<char, 16384> buffer;
    for (;;) {
        const ssize_t size = ::read(descriptor, buffer.data(), buffer.size());
        if (size < 0 && errno == EINTR) continue;
        if (size < 0) return errno;
        if (size == 0) break;
        text.append(buffer.data(), static_cast<std::size_t>(size));
        if (text.size() > most) return EFBIG;
    }
    ret_text = std::move(text);
    return 0;
}

}  // namespace

int read_trusted_file(const std::string& file, std::size_t most, std::string& ret_text,
                      std::string& ret_why) {
    if (ret_why = distrust(file); !ret_why.empty()) return EPERM;
    // With O_NONBLOCK nobody waits for a writer, should it be a FIFO.
    const Descriptor descriptor(::open(file.c_str(), O_RDONLY | O_CLOEXEC | O_NOCTTY | O_NONBLOCK));
    struct stat status = {};
    int error = descriptor && ::fstat(descriptor.get(), &status) == 0 ? 0 : errno;
    if (!error && S_ISDIR(status.st_mode)) error = EISDIR;
    if (!error && !S_ISREG(status.st_mode)) error = EINVAL;
    // It is asked of what is read, should it have been replaced since.
    if (!error) ret_why = distrust(file, status);
    if (!ret_why.empty()) return EPERM;
    if (!error) error = read_text(descriptor.get(), most, ret_text);
    if (error == EINVAL)
        ret_why = "it is not a regular file";
    else if (error == EFBIG)
        ret_why = fmt::format("it has more than {} bytes", most);
    else if (error)
        ret_why = std::strerror(error);
    return error;
}

bool is_template_name(std::string_view name) {
    const auto is_plain = [](char c) {
        return (c >= 'a' && c <= 'z') || (c >= 'A' && c <= 'Z') || (c >= '0' && c <= '9');
    };
    return !name.empty() && name.size() <= kLongestName && is_plain(name.front()) &&
           std::ranges::all_of(
               name, [&](char c) { return is_plain(c) || c == '.' || c == '_' || c == '-'; });
}

std::vector<std::string> trusted_directories(const std::vector<std::string>& directories,
                                             Errors& errors) {
    std::vector<std::string> trusted;
    for (const std::string& directory : directories)
        if (const std::string why = distrust(directory); why.empty())
            trusted.push_back(directory);
        else
            errors.push_back({{directory}, "nothing is read in this directory: " + why, {}});
    return trusted;
}

FileSet find_daemon_files(const std::vector<std::string>& directories, Errors& errors) {
    return find_files(directories, "warmforkd.toml", {}, errors);
}

std::map<std::string, FileSet> find_template_files(const std::vector<std::string>& directories,
                                                   Errors& errors) {
    std::map<std::string, FileSet> templates;
    std::vector<std::string> folders;  // one that cannot be listed is told of once
    for (const std::string& directory : directories) {
        const std::string folder = directory + "/templates.d";
        std::vector<std::string> entries;
        if (!list(folder, {}, entries, errors)) continue;
        folders.push_back(folder);
        for (const std::string& entry : entries) {
            const std::string_view ending = entry.ends_with(kEnding) ? kEnding : kDropInFolder;
            if (!entry.ends_with(ending)) continue;
            const std::string name = entry.substr(0, entry.size() - ending.size());
            if (is_template_name(name))
                templates.try_emplace(name);
            else
                errors.push_back(
                    {{folder + "/" + entry},
                     fmt::format("the name of a file here is that of its template, and "
                                 "{} is not {}",
                                 printed_text(name), kTemplateName),
                     {}});
        }
    }
    for (auto& [name, files] : templates)
        files = find_files(folders, name + std::string(kEnding), name, errors);
    return templates;
}

bool read_toml(const std::string& file, const std::string& template_name, toml::table& ret_table,
               Errors& errors) {
    std::string text, why;
    if (read_trusted_file(file, kLargestFile, text, why)) {
        errors.push_back({{file}, "this file cannot be read: " + why, template_name});
        return false;
    }
    toml::parse_result result = toml::parse(std::string_view(text), std::string_view(file));
    if (!result) {
        errors.push_back({position_of(result.error().source()),
                          std::string(result.error().description()), template_name});
        return false;
    }
    ret_table = std::move(result).table();
    return true;
}

}  // namespace warmfork::service
