// Which variables and files a process reads, from its first instruction on. In memory of its own:
// malloc may be what asks for a variable.
#pragma once

#include <sys/stat.h>

#include "preload/interface.hpp"

namespace warmfork::recorder {

/// To be called before any other code runs; nothing is recorded without.
void start();
/// Ends the recording, and returns what was read.
RecordedReads stop();
/// In a forked copy of a process that has stopped: goes on.
void resume();

/// Is this the process that records, and does it still? Not in what it forks.
bool is_recording();
void note_variable(const char* name);
/// A file that was opened, or asked about before its content was taken by a way that cannot be
/// seen. `directory`: as of openat. `status`: null: there is no such file. Keeps errno.
void note_file(int directory, const char* path, const struct stat* status);

}  // namespace warmfork::recorder
