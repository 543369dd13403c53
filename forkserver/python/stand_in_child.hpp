// For the benchmark, a child that os.fork() made does here what a warm child does after its fork.
#pragma once

#include <Python.h>

namespace warmfork::python {

/// prepare_to_become_child(child) is called in the parent.
PyObject* prepare_to_become_child(PyObject* module, PyObject* child);
/// become_child(arguments, [source, target, ...], mailbox) is called in the child, and does not
/// return.
PyObject* become_child(PyObject* module, PyObject* arguments);

}  // namespace warmfork::python
