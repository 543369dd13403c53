// The Python side of a template: the interpreter put right around each fork, and user code run as
// python3 runs it.
#pragma once

#include <Python.h>

namespace warmfork::python {

/// serve(child, report): never returns to Python in a child. `child` is the module warmfork._child; in
/// the template it returns None when the template is to end, and raises where it cannot serve.
PyObject* serve(PyObject* module, PyObject* arguments);

}  // namespace warmfork::python
