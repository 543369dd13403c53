#define PY_SSIZE_T_CLEAN
#define Py_LIMITED_API 0x03090000
#include "python/twister.hpp"

#include <errno.h>
#include <sys/random.h>

#include <algorithm>
#include <cstdint>
#include <cstring>
#include <iterator>

namespace warmfork::python {
namespace {

/// The state of numpy's generator MT19937.
struct Twister {
    std::uint32_t key[624];
    int position;
};
// The state behind the functions of numpy.random, or null where there is none, or another
// generator.
Twister* twister = nullptr;

}  // namespace

bool seed_twister() {
    if (!twister) return true;
    auto* bytes = reinterpret_cast<char*>(twister->key);
    for (std::size_t done = 0; done < sizeof twister->key;) {
        const ssize_t drawn = ::getrandom(bytes + done, sizeof twister->key - done, 0);
        if (drawn < 0 && errno != EINTR) {
            PyErr_SetFromErrno(PyExc_OSError);
            return false;
        }
        done += static_cast<std::size_t>(std::max<ssize_t>(drawn, 0));
    }
    twister->key[0] = 0x80000000;  // not all of it is 0
    twister->position = static_cast<int>(std::size(twister->key));
    return true;
}

PyObject* register_twister(PyObject*, PyObject* arguments) {
    PyObject* capsule;
    const char* key;
    Py_ssize_t size;
    int position;
    if (!PyArg_ParseTuple(arguments, "Oy#i", &capsule, &key, &size, &position)) return nullptr;
    // The first field of bitgen_t, which numpy's headers have.
    auto* const* generator = static_cast<Twister**>(PyCapsule_GetPointer(capsule, "BitGenerator"));
    if (!generator) return nullptr;
    const bool is_known = size == sizeof Twister::key &&
                          std::memcmp((*generator)->key, key, sizeof Twister::key) == 0 &&
                          (*generator)->position == position;
    twister = is_known ? *generator : nullptr;
    return PyBool_FromLong(is_known);
}

}  // namespace warmfork::python
