// The generator of numpy.random's functions, which each child seeds.
#pragma once

#include <Python.h>

namespace warmfork::python {

/// Seeds it as numpy.random.seed() does, but without any of numpy's code, which reads and writes a
/// hundred pages for these few bytes. Returns false with an exception set.
bool seed_twister();

/// register_twister(capsule, key, position) is called in the template. Children seed numpy's
/// MT19937 of this capsule. `key` and `position` are its state, as numpy says. Returns False where
/// it is somewhere else.
PyObject* register_twister(PyObject* module, PyObject* arguments);

}  // namespace warmfork::python
