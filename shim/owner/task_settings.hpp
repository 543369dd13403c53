// Settings of a task that fork and exec hand down, and that a child of a template would have from
// there. Each is read by a system call of its own.
#pragma once

#include <array>
#include <cstdint>

namespace warmfork {

/// Values in the order of the table in task_settings.cpp. Where this kernel does not have a
/// setting, it is the negated error.
using TaskSettings = std::array<std::int64_t, 40>;

/// Reads those of the calling thread and its process. Returns null, or the name of one that could
/// not be asked for. It takes some fifteen system calls.
[[nodiscard]] const char* read_task_settings(TaskSettings& ret_settings);

enum class SettingOf { thread, process };

/// Returns the name of a setting of that kind that differs, or null.
[[nodiscard]] const char* find_difference(const TaskSettings& one, const TaskSettings& other,
                                          SettingOf kind);

}  // namespace warmfork
