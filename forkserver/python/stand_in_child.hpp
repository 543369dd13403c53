// For the benchmark: what a warm child does after its fork, done by a child that os.fork() made.
#pragma once

#include <Python.h>

namespace warmfork::python {

/// prepare_to_become_child(child): in the parent.
PyObject* prepare_to_become_child(PyObject* module, PyObject* child);
/// become_child(arguments, [source, target, ...], mailbox): in the child; does not return.
PyObject* become_child(PyObject* module, PyObject* arguments);

}  // namespace warmfork::python
