// Records which variables and files a process reads, from its first instruction on. It does so in
// memory of its own, as malloc may be what asks for a variable.
#pragma once

#include <sys/stat.h>

#include "protocol/preload_interface.hpp"

namespace warmfork::recorder {

/// Begins the recording. It must be called before any other code runs; nothing is recorded without
/// it.
void start();
/// Ends the recording, and returns what was read.
RecordedReads stop();
/// Goes on with the recording, in a forked copy of a process that has stopped.
void resume();

/// Makes a system call without arguments, of which nothing is noted.
long system_call(long number);

/// Is this the process that records, and does it still? What it forks does not record.
bool is_recording();
/// `name`: null: of no variable.
void note_variable(const char* name);
/// Notes a file that was opened, or asked about before its content was taken in a way that cannot
/// be seen. `directory` is as of openat; `status` is null where there is no such file. Keeps errno.
void note_file(int directory, const char* path, const struct stat* status);

/// A file or directory that was made, written to or removed, or could not be; nothing where what
/// `path` leads to does not depend on the working directory. Not what the interpreter keeps of a
/// source beside it. Keeps errno.
void note_made(int directory, const char* path);
const MadeFiles* made();

/// A directory that is about to be listed through an open descriptor. `path`: empty: its own. Keeps
/// errno.
void note_listing(int directory, const char* path, int descriptor);
/// PreloadInterface says what this does, and the next one.
std::uint32_t list_for(std::uint32_t listed);
void drop_listing(const char* path);

/// Notes that a library has asked for something of that kind. `caller` is where the call returns
/// to. Takes no lock: an allocator may ask while it holds its own.
void note_asked(Asked kind, const void* caller);
/// Notes random bytes that were given to `caller`. Keeps errno.
void note_random(const void* bytes, std::size_t size, const void* caller);

/// Notes that `caller` has opened a file, if it is one of random bytes: nobody sees which ones are
/// read. `directory` is as of openat. Keeps errno.
void note_opened(int directory, const char* path, const struct stat& status, const void* caller);
/// What was noted by these.
const AskedForIdentity* asked();

/// Notes that this process is about to limit which system calls it may make.
void note_filter();
/// Has this process done so, or one that it was forked from?
const bool* has_filter();

}  // namespace warmfork::recorder
