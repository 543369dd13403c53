#include "template/output.hpp"

#include <fcntl.h>
#include <sys/stat.h>
#include <unistd.h>

#include <array>
#include <cstdio>
#include <string_view>

#include "protocol/messages.hpp"

namespace warmfork {
namespace {

// The owner shows at most the last three kilobytes of it, for both.
constexpr off_t kMostOutput = 256 << 10;
constexpr off_t kKeptOutput = 64 << 10;

constexpr off_t kBlockSize = 512;  // of st_blocks

/// Is it the owner's file? Preloading may have put one of its own on a standard stream.
bool is_output_file(int number) {
    std::array<char, 32> path;
    std::array<char, 64> target;
    std::snprintf(path.data(), path.size(), "/proc/self/fd/%d", number);
    const ssize_t size = ::readlink(path.data(), target.data(), target.size());
    const std::string_view name(target.data(), size > 0 ? static_cast<std::size_t>(size) : 0);
    constexpr std::string_view memory = "/memfd:";
    return name.starts_with(memory) && name.substr(memory.size()).starts_with(kOutputName);
}

}  // namespace

void bound_output() {
    for (int number : {1, 2}) {
        struct stat status;
        if (::fstat(number, &status) < 0 || !S_ISREG(status.st_mode)) continue;
        if (status.st_blocks * kBlockSize <= kMostOutput || !is_output_file(number)) continue;
        // It makes a hole, and not a shorter file: whoever writes or reads at this moment need not
        // know of it.
        const off_t last = (status.st_size - kKeptOutput) & ~off_t{4095};
        if (last > 0) ::fallocate(number, FALLOC_FL_PUNCH_HOLE | FALLOC_FL_KEEP_SIZE, 0, last);
    }
}

}  // namespace warmfork
