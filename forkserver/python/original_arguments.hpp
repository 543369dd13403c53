// What Py_GetArgcArgv returns: the arguments that the interpreter was started with, by which
// programs find the memory that `ps` shows.
#pragma once

#include <Python.h>

namespace warmfork::python {

/// In a template: looks for where the interpreter keeps them. Where it does not, what
/// Py_GetArgcArgv returns stays the template's.
void find_original_arguments();

/// In a child: these strings from now on. False with an exception set.
bool set_original_arguments(PyObject* list);

}  // namespace warmfork::python
