// Brings the interpreter of a child into the state in which a fresh one begins a command line.
#pragma once

#include <Python.h>

#include <string>

#include "python/python_objects.hpp"
#include "template/child.hpp"

namespace warmfork::python {

/// Does what can be done before the command is known. `child` is the module warmfork._child.
/// Returns false with an exception set.
bool make_ready(PyObject* child);

/// Returns which of the descriptors 0 to 2 are pipes or sockets: bit n is descriptor n.
unsigned standard_pipes();

/// Prepares the command, after `make_ready`. What it returns is for `run_prepared`; it is null with
/// an exception set.
Reference prepare(PyObject* child, const ChildCommand& command, bool is_rehearsal);

/// Returns, after `make_ready`, the code that rehearsals have compiled, by its text, borrowed.
PyObject* known_codes();
/// Returns, after `make_ready`, sys.executable.
const std::string& ready_executable();

}  // namespace warmfork::python
