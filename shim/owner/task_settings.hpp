// Settings of a task that fork and exec hand down, and that a child of a template would have from
// there: each of them by a system call of its own.
#pragma once

#include <array>
#include <cstdint>

namespace warmfork {

/// Values by the table in task_settings.cpp; where a setting is not in this kernel the error says
/// so, negated.
using TaskSettings = std::array<std::int64_t, 40>;

/// Reads those of the calling thread and its process. Returns null, or the name of one that could
/// not be asked for. Some fifteen system calls.
[[nodiscard]] const char* read_task_settings(TaskSettings& ret_settings);

enum class SettingOf { thread, process };

/// The name of a setting of that kind that differs, or null.
[[nodiscard]] const char* find_difference(const TaskSettings& one, const TaskSettings& other,
                                          SettingOf kind);

}  // namespace warmfork
