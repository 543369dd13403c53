// The environment, as Python keeps it.
#pragma once

#include <Python.h>

#include <string>
#include <vector>

#include "python/python_objects.hpp"

namespace warmfork::python {

/// Makes a dictionary as os keeps it, of bytes by bytes. Where a name is given twice, the first
/// counts. Returns null with an exception set on failure.
Reference environment_dictionary(char** variables);

/// Makes os.environ of a child equal to environ, unless it is. `child` is the module
/// warmfork._child. Returns false with an exception set.
bool renew_environment(PyObject* child);
/// Returns what os.environ was last made equal to.
std::vector<std::string>& renewed_environment();

/// Copies, in a child that becomes a template, what the record has brought: it lies where the
/// records of this process's own children will, and modules may keep what getenv returned. Ends the
/// process where there is no memory.
void save_environment();

}  // namespace warmfork::python
