// The Python side of a template: the interpreter put right around each fork, and user code run as
// python3 runs it.
#pragma once

#include <Python.h>

namespace warmfork::python {

/// announce() does what announce_template does. Raises where there is nobody to be told.
PyObject* announce(PyObject* module, PyObject* none);

/// serve([child, hook, report, description, log, obstacle, findings, restore, image]) never returns
/// to Python, neither in the template, which ends here, nor in a child; so the list is emptied.
/// `child` is the module warmfork._child, `hook` is called before each fork, unless it is None,
/// `description` says what the image was made from, `image` is for layers on it.
PyObject* serve(PyObject* module, PyObject* list);

/// Returns, in a layer, what the template that it was forked from gave to `serve`; otherwise None.
PyObject* extended_image(PyObject* module, PyObject* none);

/// Returns the environment that this process was started with, as bytes by bytes.
PyObject* start_environment(PyObject* module, PyObject* none);

/// Returns what environ holds, as bytes by bytes.
PyObject* current_environment(PyObject* module, PyObject* none);

}  // namespace warmfork::python
