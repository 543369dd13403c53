// Runs what warmfork._child has prepared, as python3 runs it.
#pragma once

#include <Python.h>

#include "python/python_objects.hpp"

namespace warmfork::python {

/// How a program ended.
enum class ProgramEnd { done, failed, interrupted };

/// Runs the program. `child` is the module warmfork._child; `known_codes` are programs for -c that
/// have been compiled, by their text. No Python frame of warmfork's own lies below the program.
/// Does not return where the program exits by itself.
ProgramEnd run_prepared(PyObject* child, Reference prepared, PyObject* known_codes);

/// Reports the exception as python3 does; for SystemExit this ends the process, with its status.
ProgramEnd fail_with_traceback();

/// Has the interpreter what it takes to run files? That is no part of the stable ABI.
bool can_run_files();

}  // namespace warmfork::python
