#include "service/automatic_file.hpp"

#include <fcntl.h>
#include <fmt/format.h>
#include <sys/stat.h>
#include <unistd.h>

#include <cerrno>
#include <cstdlib>
#include <filesystem>

#include "channel/descriptor.hpp"
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

}  // namespace

std::string automatic_file(std::string_view instance) {
    const std::string state = state_home();
    if (state.empty() || !is_plain_name(instance)) return {};
    return fmt::format("{}/warmfork/automatic{}{}.json", state, instance.empty() ? "" : "-",
                       instance);
}

int read_own_file(const std::string& path, std::string& ret_text) {
    // With O_NONBLOCK nobody waits for a writer, should it be a FIFO.
    const Descriptor file(
        ::open(path.c_str(), O_RDONLY | O_CLOEXEC | O_NOFOLLOW | O_NOCTTY | O_NONBLOCK));
    struct stat status;
    if (!file || ::fstat(file.get(), &status) < 0) return errno;
    if (!S_ISREG(status.st_mode) || status.st_uid != ::geteuid() || (status.st_mode & 0022))
        return EPERM;
    return read_text(file.get(), kLargestFile, ret_text);
}

int replace_own_file(const std::string& path, std::string_view text) {
    const std::string directory = fs::path(path).parent_path(), next = path + ".new";
    std::error_code error;
    fs::create_directories(fs::path(directory).parent_path(), error);
    if (::mkdir(directory.c_str(), 0700) < 0 && errno != EEXIST) return errno;
    Descriptor file(
        ::open(next.c_str(), O_WRONLY | O_CREAT | O_TRUNC | O_CLOEXEC | O_NOFOLLOW, 0600));
    if (!file) return errno;
    while (!text.empty()) {
        const ssize_t size = ::write(file.get(), text.data(), text.size());
        if (size < 0 && errno == EINTR) continue;
        if (size < 0) {
            const int error_number = errno;
            ::unlink(next.c_str());
            return error_number;
        }
        text.remove_prefix(static_cast<std::size_t>(size));
    }
    file.reset();
    return ::rename(next.c_str(), path.c_str()) < 0 ? errno : 0;
}

}  // namespace warmfork::service
