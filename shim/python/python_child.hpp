// The Python side of a template: the interpreter put right around each fork, and user code run as
// python3 runs it.
#pragma once

#include <Python.h>

namespace warmfork::python {

/// serve(child, report): never returns to Python in a child. `child` is the module warmfork._child;
/// in the template it returns None when the template is to end, and raises where it cannot serve.
PyObject* serve(PyObject* module, PyObject* arguments);

/// The names of the variables that this process was started with, as bytes.
PyObject* start_environment(PyObject* module, PyObject* none);

/// For the benchmark: what a warm child does after its fork, done by a child that os.fork() made.
/// prepare_to_become_child(child): in the parent. become_child(arguments, [source, target, ...],
/// mailbox): in the child; does not return.
PyObject* prepare_to_become_child(PyObject* module, PyObject* child);
PyObject* become_child(PyObject* module, PyObject* arguments);

}  // namespace warmfork::python
