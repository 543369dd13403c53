#include "service/board_object.hpp"

#include <fmt/format.h>
#include <sys/stat.h>
#include <time.h>

#include <algorithm>
#include <cerrno>
#include <fstream>
#include <iterator>
#include <sstream>

namespace interprocess = boost::interprocess;

namespace warmfork {
namespace {

constexpr std::size_t kMaximumInstanceSize = 64;

bool may_be_in_a_name(unsigned char character) {
    return (character >= 'a' && character <= 'z') || (character >= 'A' && character <= 'Z') ||
           (character >= '0' && character <= '9') ||
           std::string_view(".-_@:").find(static_cast<char>(character)) != std::string_view::npos;
}

int check_owner(const struct stat& status, uid_t uid) {
    return S_ISREG(status.st_mode) && status.st_uid == uid ? 0 : EACCES;
}

}  // namespace

std::string board_name(uid_t uid, std::string_view instance) {
    if (instance.size() > kMaximumInstanceSize ||
        !std::all_of(instance.begin(), instance.end(), may_be_in_a_name))
        return {};
    return instance.empty() ? fmt::format("warmfork-{}", uid)
                            : fmt::format("warmfork-{}-{}", uid, instance);
}

int open_board(const std::string& name, uid_t uid, interprocess::mode_t mode,
               interprocess::shared_memory_object& ret_object, std::uint64_t& ret_size) {
    struct stat status;
    // This is asked before it is opened, because opening a pipe that somebody left there would wait
    // for ever. /dev/shm is where glibc has its shared memory.
    if (::lstat(("/dev/shm/" + name).c_str(), &status) < 0) return errno;
    if (int error = check_owner(status, uid)) return error;
    try {
        interprocess::shared_memory_object object(interprocess::open_only, name.c_str(), mode);
        if (::fstat(object.get_mapping_handle().handle, &status) < 0) return errno;
        if (int error = check_owner(status, uid)) return error;
        ret_object.swap(object);
    } catch (const interprocess::interprocess_exception& error) {
        return errno_of(error);
    }
    ret_size = static_cast<std::uint64_t>(status.st_size);
    return 0;
}

int errno_of(const interprocess::interprocess_exception& error) {
    return error.get_native_error() ? error.get_native_error() : ENOMEM;
}

std::uint64_t process_start_ticks(std::uint64_t pid) {
    std::ifstream file(fmt::format("/proc/{}/stat", pid));
    const std::string text((std::istreambuf_iterator<char>(file)), {});
    // They stand behind the name, which may hold anything.
    std::istringstream fields(text.substr(std::min(text.size(), text.rfind(')') + 2)));
    std::string field, state;
    fields >> state;
    for (int number = 4; number < 22; ++number) fields >> field;
    std::uint64_t ticks = 0;
    fields >> ticks;  // field 22 of proc(5)
    return state == "Z" || state == "X" ? 0 : ticks;
}

std::uint64_t nanoseconds_since_boot() {
    timespec now;
    ::clock_gettime(CLOCK_BOOTTIME, &now);
    return static_cast<std::uint64_t>(now.tv_sec) * 1'000'000'000 +
           static_cast<std::uint64_t>(now.tv_nsec);
}

}  // namespace warmfork
