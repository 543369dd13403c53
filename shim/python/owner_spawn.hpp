// Spawns for the Python of their owner, and what it has to do with children. Each function is the
// module's of the same name, and documented at its definition.
#pragma once

#include <Python.h>

namespace warmfork::python {

PyObject* spawn(PyObject* module, PyObject* arguments, PyObject* names);
PyObject* make_pipes(PyObject* module, PyObject* arguments);
PyObject* adopt(PyObject* module, PyObject* number);
PyObject* give_to_keeper(PyObject* module, PyObject* capsule);
PyObject* wait(PyObject* module, PyObject* arguments);
PyObject* send_signal(PyObject* module, PyObject* arguments);
PyObject* pidfd(PyObject* module, PyObject* capsule);
PyObject* poll_now(PyObject* module, PyObject* arguments);

}  // namespace warmfork::python
