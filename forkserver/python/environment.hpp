// The environment, as Python keeps it.
#pragma once

#include <Python.h>

#include <string>
#include <vector>

#include "python/python_objects.hpp"

namespace warmfork::python {

/// As os keeps it: bytes by bytes. Of a name given twice the first counts. Null with an exception
/// set.
Reference environment_dictionary(char** variables);

/// In a child: os.environ made equal to environ, unless it is. `child`: the module warmfork._child.
/// False with an exception set.
bool renew_environment(PyObject* child);
/// What it was made equal to, last.
std::vector<std::string>& renewed_environment();

/// In a child that becomes a template: copies of what the record has brought, which lies where the
/// records of this process's own children will: modules may keep what getenv returned. Ends the
/// process where there is no memory.
void keep_environment();

}  // namespace warmfork::python
