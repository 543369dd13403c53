// Whether what lies at a path is this user's own, or somebody else decides on it.
#pragma once

#include <sys/stat.h>

#include <string>

namespace warmfork {

/// Returns why somebody other than this user and root decides what lies there, as a sentence; an
/// empty text where nobody does. Whoever may rename what is on the way decides as well. Of what is
/// not there, or may not be entered, nothing is said: that is found out by reading it. Where it
/// cannot be told otherwise, that is the reason. Blocks on the disk.
[[nodiscard]] std::string distrust(const std::string& path);

/// Asks the same of one file or directory, which has this status.
[[nodiscard]] std::string distrust(const std::string& path, const struct stat& status);

}  // namespace warmfork
