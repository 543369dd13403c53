// What numpy's SeedSequence makes of its entropy.
#pragma once

#include <Python.h>

namespace warmfork::python {

/// mix_pool(words, size) -> the pool, of 32-bit words as bytes, the lowest first. size: its words.
/// words: those of entropy and key, as bytes likewise; missing ones count as 0. Raises ValueError
/// where size is less than 1, or more than 1,024.
PyObject* mix_pool(PyObject* module, PyObject* arguments);

}  // namespace warmfork::python
