#include "service/automatic_file.hpp"

#include <fcntl.h>
#include <fmt/format.h>
#include <sys/stat.h>
#include <unistd.h>

#include <cerrno>
#include <cstdlib>
#include <cstring>
#include <filesystem>

#include "channel/descriptor.hpp"
#include "channel/trusted_path.hpp"
#include "service/configuration.hpp"
#include "service/configuration_files.hpp"

namespace warmfork::service {
namespace {

namespace fs = std::filesystem;

// It has room for 256 commands with paths of the usual lengths.
constexpr std::size_t kLargestFile = 4u << 20;

bool is_plain_name(std::string_view name) {
    return name.find('/') == std::string_view::npos && name.find('\0') == std::string_view::npos;
}

/// Makes those that are missing, for this user alone whatever the umask. Where it fails, so does
/// what is written there.
void make_directories(const fs::path& directory) {
    if (directory.has_relative_path()) make_directories(directory.parent_path());
    ::mkdir(directory.c_str(), 0700);
}

}  // namespace

std::string automatic_file(std::string_view instance) {
    const std::string state = state_home();
    if (state.empty() || !is_plain_name(instance)) return {};
    return fmt::format("{}/warmfork/automatic{}{}.json", state, instance.empty() ? "" : "-",
                       instance);
}

std::string read_automatic_file(const std::string& path, std::string& ret_text) {
    std::string why;
    const int error = read_trusted_file(path, kLargestFile, ret_text, why);
    return error == ENOENT ? std::string() : why;
}

std::string replace_own_file(const std::string& path, std::string_view text) {
    const std::string directory = fs::path(path).parent_path(), next = path + ".new";
    make_directories(directory);
    if (std::string why = distrust(directory); !why.empty()) return why;
    Descriptor file(
        ::open(next.c_str(), O_WRONLY | O_CREAT | O_TRUNC | O_CLOEXEC | O_NOFOLLOW, 0600));
    if (!file) return std::strerror(errno);
    while (!text.empty()) {
        const ssize_t size = ::write(file.get(), text.data(), text.size());
        if (size < 0 && errno == EINTR) continue;
        if (size < 0) {
            const int error_number = errno;
            ::unlink(next.c_str());
            return std::strerror(error_number);
        }
        text.remove_prefix(static_cast<std::size_t>(size));
    }
    file.reset();
    return ::rename(next.c_str(), path.c_str()) < 0 ? std::strerror(errno) : std::string();
}

}  // namespace warmfork::service
