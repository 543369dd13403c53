// Which variables and files a process reads, from its first instruction on. In memory of its own:
// malloc may be what asks for a variable.
#pragma once

#include <sys/stat.h>

#include "protocol/preload_interface.hpp"

namespace warmfork::recorder {

/// To be called before any other code runs; nothing is recorded without.
void start();
/// Ends the recording, and returns what was read.
RecordedReads stop();
/// Goes on with the recording, in a forked copy of a process that has stopped.
void resume();

/// Makes a system call without arguments, of which nothing is noted.
long system_call(long number);

/// Is this the process that records, and does it still? What it forks does not record.
bool is_recording();
void note_variable(const char* name);
/// A file that was opened, or asked about before its content was taken by a way that cannot be
/// seen. `directory`: as of openat. `status`: null: there is no such file. Keeps errno.
void note_file(int directory, const char* path, const struct stat* status);

/// A file or directory that was made, written to or removed, or could not be; nothing where what
/// `path` leads to does not depend on the working directory. Not what the interpreter keeps of a
/// source beside it. Keeps errno.
void note_made(int directory, const char* path);
const MadeFiles* made();

/// A directory that is about to be listed through an open descriptor. `path`: empty: its own. Keeps
/// errno.
void note_listing(int directory, const char* path, int descriptor);
/// See PreloadInterface.
std::uint32_t list_for(std::uint32_t listed);
void forget_listing(const char* path);

/// `caller`: where the call returns to. Takes no lock: an allocator may ask while it holds its own.
void note_asked(Asked kind, const void* caller);
/// Random bytes that were given to `caller`. Keeps errno.
void note_random(const void* bytes, std::size_t size, const void* caller);
/// What was noted by these two.
const AskedForIdentity* asked();

/// This process is about to limit which system calls it may make.
void note_filter();
/// Has it done so, or has one that it was forked from?
const bool* has_filter();

}  // namespace warmfork::recorder
