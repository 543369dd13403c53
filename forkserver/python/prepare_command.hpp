// Brings the interpreter of a child into the state in which a fresh one begins a command line.
#pragma once

#include <Python.h>

#include <string>

#include "python/python_objects.hpp"
#include "template/child.hpp"

namespace warmfork::python {

/// What can be done before the command is known. `child`: the module warmfork._child. False with an
/// exception set.
bool make_ready(PyObject* child);

/// Descriptors 0 to 2 that are pipes or sockets: bit n.
unsigned standard_pipes();

/// After `make_ready`: what it returns is for `run_prepared`; null with an exception set.
Reference prepare(PyObject* child, const ChildCommand& command, bool is_rehearsal);

/// After `make_ready`: code by its text, of rehearsals; borrowed.
PyObject* known_codes();
/// After `make_ready`: sys.executable.
const std::string& ready_executable();

}  // namespace warmfork::python
