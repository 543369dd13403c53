// What the functions of the module have in common: how they fail, and how they wait.
#pragma once

#include <Python.h>

#include <functional>
#include <utility>

#include "owner/waiting.hpp"
#include "python/python_objects.hpp"
#include "warmfork.h"

namespace warmfork::python {

/// Raises warmfork's error type with (errno, text, stage, stage name, detail).
inline PyObject* raise(const warmfork_failure& failure) {
    if (PyErr_Occurred()) return nullptr;  // a signal's handler, which has broken the call off
    Reference package(PyImport_ImportModule("warmfork._errors"));
    Reference make(package ? PyObject_GetAttrString(package.get(), "make_error") : nullptr);
    if (!make) return nullptr;
    Reference error(PyObject_CallFunction(make.get(), "isisi", failure.error_number, failure.text,
                                          static_cast<int>(failure.stage),
                                          warmfork_stage_name(failure.stage), failure.detail));
    if (error) PyErr_SetObject(reinterpret_cast<PyObject*>(Py_TYPE(error.get())), error.get());
    return nullptr;
}

/// What a signal's handler has raised in the moment of success, put aside while the result is
/// handed over.
class LateError {
  public:
    LateError() { PyErr_Fetch(&type_, &value_, &traceback_); }
    LateError(const LateError&) = delete;
    LateError& operator=(const LateError&) = delete;
    ~LateError() {
        Py_XDECREF(type_);
        Py_XDECREF(value_);
        Py_XDECREF(traceback_);
    }

    /// Returns None; null with that exception set, if there is one. Once.
    PyObject* or_none() {
        if (!type_) Py_RETURN_NONE;
        PyErr_Restore(std::exchange(type_, nullptr), std::exchange(value_, nullptr),
                      std::exchange(traceback_, nullptr));
        return nullptr;
    }

  private:
    PyObject *type_, *value_, *traceback_;
};

/// Lets go of the GIL for a wait, in which handlers of signals run nevertheless: where one raises,
/// the wait is broken off.
class Wait {
  public:
    /// `may_go_on` is asked as well, now and then and with the GIL. If it returns false, with an
    /// exception set, the wait is broken off.
    explicit Wait(std::function<bool()> may_go_on = [] { return true; })
        : state_(PyEval_SaveThread()), interruption_([this, may_go_on = std::move(may_go_on)] {
              PyEval_RestoreThread(state_);
              const bool has_raised = PyErr_CheckSignals() != 0 || !may_go_on();
              state_ = PyEval_SaveThread();
              return has_raised;
          }) {}
    Wait(const Wait&) = delete;
    Wait& operator=(const Wait&) = delete;
    ~Wait() { PyEval_RestoreThread(state_); }

  private:
    PyThreadState* state_;
    Interruption interruption_;
};

}  // namespace warmfork::python
