// What Py_GetArgcArgv returns: the arguments that the interpreter was started with, by which
// programs find the memory that `ps` shows.
#pragma once

#include <Python.h>

namespace warmfork::python {

/// Looks, in a template, for where the interpreter keeps them. Where it does not, what
/// Py_GetArgcArgv returns stays the template's.
void find_original_arguments();

/// Makes these strings what the interpreter keeps from now on, in a child. Returns false with an
/// exception set.
bool set_original_arguments(PyObject* list);

}  // namespace warmfork::python
