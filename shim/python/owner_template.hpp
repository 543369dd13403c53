// Templates for the Python of their owner. Each function is the module's of the same name, and
// documented at its definition.
#pragma once

#include <Python.h>

#include "warmfork.h"

namespace warmfork::python {

struct Handle;

/// The template of a capsule, for as long as this lives. It is null, with an exception set, if the
/// capsule has none, or it is closed. The GIL must be held.
class InUse {
  public:
    explicit InUse(PyObject* capsule);
    InUse(const InUse&) = delete;
    InUse& operator=(const InUse&) = delete;
    ~InUse();

    warmfork_template* get() const;
    /// False, with an exception set, once another thread has closed it. With the GIL held.
    bool is_still_open() const;
    explicit operator bool() const { return handle_ != nullptr; }

  private:
    Handle* handle_ = nullptr;
};

PyObject* open(PyObject* module, PyObject* arguments, PyObject* names);
PyObject* connect(PyObject* module, PyObject* arguments);
PyObject* close(PyObject* module, PyObject* capsule);
PyObject* wait_ready(PyObject* module, PyObject* arguments);
PyObject* wait_parked(PyObject* module, PyObject* arguments);
PyObject* set_spares(PyObject* module, PyObject* arguments);
PyObject* pid(PyObject* module, PyObject* capsule);
PyObject* parked(PyObject* module, PyObject* capsule);
PyObject* report(PyObject* module, PyObject* capsule);
PyObject* counts(PyObject* module, PyObject* capsule);
PyObject* leave_unchecked(PyObject* module, PyObject* capsule);

}  // namespace warmfork::python
