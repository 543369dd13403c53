#include "owner/task_settings.hpp"

#include <sys/personality.h>
#include <sys/prctl.h>
#include <sys/syscall.h>
#include <unistd.h>

#include <algorithm>
#include <cerrno>
#include <span>

#include "owner/task_controls.hpp"

namespace warmfork {
namespace {

constexpr std::size_t kMemoryNodes = 1024;  // CONFIG_NODES_SHIFT is 10 at most

std::int64_t result_of(std::int64_t result) {
    return result < 0 ? -errno : result;
}

int error_of(std::int64_t result) {
    return result < 0 ? static_cast<int>(-result) : 0;
}

/// Reads one setting, of one or more words. Returns false where it cannot be asked for.
using Words = std::span<std::int64_t>;
using Read = bool (*)(Words ret_words);

template <int option, unsigned long argument = 0>
bool read_control(Words ret_words) {
    ret_words[0] = result_of(::prctl(option, argument, 0, 0, 0));
    return ret_words[0] >= 0 || is_absent_setting(error_of(ret_words[0]));
}

/// Reads this one where it can: to see it takes the privilege that setting it takes, and whoever
/// lacks that has never set it.
bool read_io_flusher(Words ret_words) {
    return read_control<kGetIoFlusher>(ret_words) || ret_words[0] == -EPERM;
}

/// Reads one that the kernel writes to an address.
bool read_time_stamp_counter(Words ret_words) {
    int value = 0;
    const std::int64_t result = result_of(::prctl(PR_GET_TSC, &value, 0, 0, 0));
    ret_words[0] = result < 0 ? result : value;
    return result == 0 || is_absent_setting(error_of(result));
}

bool read_core_cookie(Words ret_words) {
    std::uint64_t cookie = 0;
    const std::int64_t result = result_of(::prctl(kCoreScheduling, 0, 0, 0, &cookie));
    ret_words[0] = result < 0 ? result : static_cast<std::int64_t>(cookie);
    return result == 0 || is_absent_setting(error_of(result));
}

/// Reads the scheduling. The nice value travels, and is left out.
bool read_scheduling(Words ret_words) {
    SchedulingAttributes attributes{};
    if (::syscall(SYS_sched_getattr, 0, &attributes, sizeof attributes, 0) < 0) return false;
    ret_words[0] = attributes.policy;
    ret_words[1] = static_cast<std::int64_t>(attributes.flags);
    ret_words[2] = attributes.priority;
    ret_words[3] = static_cast<std::int64_t>(attributes.runtime);
    ret_words[4] = static_cast<std::int64_t>(attributes.deadline);
    ret_words[5] = static_cast<std::int64_t>(attributes.period);
    ret_words[6] = static_cast<std::int64_t>(std::uint64_t{attributes.least_utilization} << 32 |
                                             attributes.most_utilization);
    return true;
}

bool read_io_priority(Words ret_words) {
    ret_words[0] = ::syscall(SYS_ioprio_get, kIoPriorityOfProcess, 0);
    return ret_words[0] >= 0;
}

bool read_personality(Words ret_words) {
    ret_words[0] = ::personality(0xffffffff);
    return ret_words[0] >= 0;
}

/// Reads the memory policy. Container engines forbid to ask for it, and to set it as well: then it
/// is as it was. To see that, an invalid one is set, which does nothing.
bool read_memory_policy(Words ret_words) {
    int mode = 0;
    std::fill(ret_words.begin(), ret_words.end(), 0);
    const std::int64_t result =
        result_of(::syscall(SYS_get_mempolicy, &mode, &ret_words[1], kMemoryNodes + 1, nullptr, 0));
    ret_words[0] = result < 0 ? result : mode;
    return result == 0 || (::syscall(SYS_set_mempolicy, -1, nullptr, 0) < 0 && -errno == result);
}

struct Setting {
    const char* name;
    SettingOf kind;
    std::size_t words;
    Read read;
};

constexpr Setting kSettings[] {
    {"securebits", SettingOf::thread, 1, read_control<PR_GET_SECUREBITS>},
        {"timer slack", SettingOf::thread, 1, read_control<PR_GET_TIMERSLACK>},
        {"machine check policy", SettingOf::thread, 1, read_control<PR_MCE_KILL_GET>},
        {"I/O flusher flag", SettingOf::thread, 1, read_io_flusher},
        {"flush of the data cache", SettingOf::thread, 1,
         read_control<PR_GET_SPECULATION_CTRL, kFlushOfDataCache>},
        {"access to the time stamp counter", SettingOf::thread, 1, read_time_stamp_counter},
        {"core scheduling cookie", SettingOf::thread, 1, read_core_cookie},
        {"scheduling class", SettingOf::thread, 7, read_scheduling},
        {"I/O priority", SettingOf::thread, 1, read_io_priority},
        {"personality", SettingOf::thread, 1, read_personality},
        {"memory policy", SettingOf::thread, 1 + kMemoryNodes / 64, read_memory_policy},
        {"use of huge pages", SettingOf::process, 1, read_control<PR_GET_THP_DISABLE>},
        {"ban on writable code", SettingOf::process, 1, read_control<kGetWriteExecuteBan>},
        {"merging of equal pages", SettingOf::process, 1, read_control<kGetMemoryMerging>},
#if defined(__aarch64__)
        {"vector length", SettingOf::thread, 1, read_control<PR_SVE_GET_VL>},
        {"streaming vector length", SettingOf::thread, 1, read_control<64 /* PR_SME_GET_VL */>},
#endif
};

constexpr std::size_t word_count() {
    std::size_t count = 0;
    for (const Setting& setting : kSettings) count += setting.words;
    return count;
}
static_assert(word_count() <= std::tuple_size_v<TaskSettings>);

}  // namespace

const char* read_task_settings(TaskSettings& ret_settings) {
    Words rest(ret_settings);
    for (const Setting& setting : kSettings) {
        if (!setting.read(rest.first(setting.words))) return setting.name;
        rest = rest.subspan(setting.words);
    }
    return nullptr;
}

const char* find_difference(const TaskSettings& one, const TaskSettings& other, SettingOf kind) {
    std::size_t at = 0;
    for (const Setting& setting : kSettings) {
        const auto begin = static_cast<std::ptrdiff_t>(at);
        const auto end = static_cast<std::ptrdiff_t>(at += setting.words);
        if (setting.kind == kind &&
            !std::equal(one.begin() + begin, one.begin() + end, other.begin() + begin))
            return setting.name;
    }
    return nullptr;
}

}  // namespace warmfork
