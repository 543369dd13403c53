// The generator of numpy.random's functions, which each child seeds.
#pragma once

#include <Python.h>

namespace warmfork::python {

/// As numpy.random.seed() has it, but without any of numpy's code, which reads and writes a hundred
/// pages for these few bytes. False with an exception set.
bool seed_twister();

/// keep_twister(capsule, key, position): in the template. Children seed numpy's MT19937 of this
/// capsule. `key`, `position`: its state, as numpy says. False: it is somewhere else.
PyObject* keep_twister(PyObject* module, PyObject* arguments);

}  // namespace warmfork::python
