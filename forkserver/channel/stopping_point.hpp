// Named steps on the way of a spawn at which a test can kill or stop whoever gets there. They exist
// only in a build with the CMake option WARMFORK_STOPPING_POINTS; in all others a call is no code
// at all.
//
// A process takes part if its environment has WARMFORK_STOPPING_POINTS=DIRECTORY when it first gets
// to a step. The test makes a file there, named as the step with `.kill` or `.stop` behind it. The
// first process that gets to the step removes the file, writes its pid into the FIFO `reached` that
// lies beside it, and raises the signal on itself. So each file stops one process once.
#pragma once

namespace warmfork {

#ifdef WARMFORK_STOPPING_POINTS

/// It is safe wherever a signal handler would be, and between fork and exec: it neither allocates
/// nor locks, and leaves errno alone. `name` is a literal.
void stopping_point(const char* name);

/// Returns the variable of this process that makes another one take part, NAME=VALUE, or null where
/// it has none.
char* stopping_point_variable();

#else

constexpr void stopping_point(const char*) {}
constexpr char* stopping_point_variable() {
    return nullptr;
}

#endif

}  // namespace warmfork
