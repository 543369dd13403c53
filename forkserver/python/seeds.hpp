// What has seeded a generator of the kind that random.Random and numpy's RandomState are (MT19937).
#pragma once

#include <Python.h>

namespace warmfork::python {

/// seed_of(state, others) -> the key that it was seeded with, as bytes in the order of a number's
/// 32-bit words, the lowest first; or all the random bytes that it was filled or seeded with, or
/// the one of the other states that it goes on from; None: it cannot be told, since the state was
/// set, or has gone too far. state: the 624 words, as bytes. others: any number of states. What has
/// come out of a generator since does not matter: its steps can be taken back.
PyObject* seed_of(PyObject* module, PyObject* arguments);

}  // namespace warmfork::python
