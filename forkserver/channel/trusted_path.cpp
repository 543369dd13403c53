#include "channel/trusted_path.hpp"

#include <unistd.h>

#include <cerrno>
#include <filesystem>
#include <system_error>

namespace warmfork {
namespace {

namespace fs = std::filesystem;

/// `is_way` means a directory on the way, where whoever may only make files of their own (/tmp)
/// cannot replace those of others.
std::string distrust_part(const std::string& path, const struct stat& status, bool is_way) {
    if (status.st_uid != 0 && status.st_uid != ::geteuid())
        return path + " belongs to user " + std::to_string(status.st_uid) +
               ", and not to this one or root";
    if (!(status.st_mode & 0022) || (is_way && (status.st_mode & S_ISVTX))) return {};
    return "others may write to " + path + ": chmod go-w";
}

/// Of what is not there, and of what this process may not enter, reading it tells. What else is in
/// the way of looking may not be in that of reading.
std::string distrust_unseen(const std::string& path, const std::error_code& error) {
    const bool is_told = error == std::errc::no_such_file_or_directory ||
                         error == std::errc::not_a_directory ||
                         error == std::errc::permission_denied;
    return is_told ? std::string() : path + " cannot be looked at: " + error.message();
}

}  // namespace

std::string distrust(const std::string& path, const struct stat& status) {
    return distrust_part(path, status, false);
}

std::string distrust(const std::string& path) {
    std::error_code error;
    const fs::path real = fs::canonical(path, error);
    if (error) return distrust_unseen(path, error);
    fs::path way;
    for (const fs::path& part : real) {
        way /= part;
        struct stat status;
        if (::lstat(way.c_str(), &status) < 0)
            return distrust_unseen(way, {errno, std::generic_category()});
        if (std::string why = distrust_part(way, status, way != real); !why.empty()) return why;
    }
    return {};
}

}  // namespace warmfork
