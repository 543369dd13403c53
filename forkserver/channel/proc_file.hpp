// Files of /proc, which tell no size, read whole: what a buffer cuts off would be taken for what is
// not there.
#pragma once

#include <unistd.h>

#include <algorithm>
#include <array>
#include <cerrno>
#include <cstddef>
#include <string>
#include <string_view>
#include <utility>

namespace warmfork {

/// Reads the file from its beginning, wherever its position is. Returns 0 or errno (EFBIG: it goes
/// on beyond two megabytes; a status with as many groups as the kernel allows has less than one).
[[nodiscard]] inline int read_whole(int file, std::string& ret_text) {
    constexpr std::size_t kFirst = 4096, kMost = 2u << 20;
    std::string text(kFirst, '\0');
    for (std::size_t size = 0;;) {
        const ssize_t more =
            ::pread(file, text.data() + size, text.size() - size, static_cast<off_t>(size));
        if (more < 0) return errno;
        size += static_cast<std::size_t>(more);
        if (more == 0) {
            text.resize(size);
            ret_text = std::move(text);
            return 0;
        }
        if (size < text.size()) continue;
        if (size >= kMost) return EFBIG;
        text.resize(2 * size);
    }
}

/// The status of a task. Returns 0 or errno (ENODATA: it does not tell all that makes the task more
/// or less privileged than another one).
[[nodiscard]] inline int read_task_status(int file, std::string& ret_text) {
    std::string text;
    if (int error = read_whole(file, text)) return error;
    constexpr std::array<std::string_view, 12> keys{
        "\nUmask:",  "\nUid:",    "\nGid:",    "\nGroups:", "\nSigIgn:",     "\nCapInh:",
        "\nCapPrm:", "\nCapEff:", "\nCapBnd:", "\nCapAmb:", "\nNoNewPrivs:", "\nSeccomp:"};
    const auto is_there = [&](std::string_view key) { return text.find(key) != std::string::npos; };
    if (!std::all_of(keys.begin(), keys.end(), is_there)) return ENODATA;
    ret_text = std::move(text);
    return 0;
}

}  // namespace warmfork
