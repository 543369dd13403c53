// What a child imports that its image lacked, for templates that learn.
#pragma once

#include <string>

namespace warmfork::python {

/// Has imports timed from here on, by this interpreter and those forked from it. Needs the GIL.
/// Returns false with an exception set.
[[nodiscard]] bool time_imports();

/// What was imported up to now does not count. When this process ends, by exit, it adds a line to
/// the file, with " name=microseconds" for each module that was imported since, without the time of
/// what that module imported itself. A module whose loader is not Python's own is left out.
/// Processes that it forks add no line. Where the line cannot be written the process ends as it
/// would have. `path` is kept, and must be good until then.
void report_imports_at_exit(const std::string& path);

}  // namespace warmfork::python
