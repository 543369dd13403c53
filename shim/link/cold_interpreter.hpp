// What only an interpreter of Python that starts cold can honour. Nothing here allocates or takes a
// lock.
#pragma once

#include <array>
#include <string_view>

namespace warmfork::link {

/// The letters of Python/getopt.c that a template can be started with. Not R: it asks for a salt of
/// hashes that no other process has.
inline constexpr std::string_view kShapingLetters = "bBEIOPqsSu";

/// -X options whose effect begins with the first import, or that report at the end on what the
/// template has done.
inline constexpr std::array kColdExtensions{
    std::string_view("importtime"),   std::string_view("tracemalloc"),
    std::string_view("perf"),         std::string_view("perf_jit"),
    std::string_view("showrefcount"), std::string_view("showalloccount"),
    std::string_view("dump_refs"),    std::string_view("presite")};

/// Variables that make an interpreter report or ask at its end, or on what the template has done,
/// or name it.
inline constexpr std::array kColdVariables{
    "PYTHONINSPECT",     "PYTHONVERBOSE",     "PYTHONPROFILEIMPORTTIME", "PYTHONTRACEMALLOC",
    "PYTHONDUMPREFS",    "PYTHONPERFSUPPORT", "PYTHONDUMPREFSFILE",      "PYTHONTHREADDEBUG",
    "PYTHONMALLOCSTATS", "PYTHONEXECUTABLE",  "PYTHON_PERF_JIT_SUPPORT", "PYTHON_PRESITE"};

/// Does the name of a -X option, without its value, stand among them?
[[nodiscard]] bool is_cold_extension(std::string_view name);

/// Do the variables of this process, or the options of an interpreter's command line, by themselves
/// tell that no template serves it? False: they do not; then whoever knows all rules decides.
[[nodiscard]] bool is_plainly_cold(bool is_interpreter, char* const* arguments);

}  // namespace warmfork::link
