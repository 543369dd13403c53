// How a warm child leaves Py_FinalizeEx: as soon as all that has an end has come to it, instead of
// taking the interpreter apart, which nobody can see and which writes to each page of the image.
//
// An object of ours is stored where finalize_modules of CPython takes out what it finds, before all
// else: threads and exit handlers are through by then, the streams have been flushed, signal
// handlers put back and garbage collected; sys.is_finalizing() is true. When CPython releases the
// object, our code runs. From there on we do what CPython would, with the modules of the program
// only, and then end the process. Where something is left after all we return, and CPython does the
// rest.
#pragma once

#include <Python.h>

#include "python/frozen_image.hpp"

namespace warmfork::python {

/// Py_RunMain returns this where finalization could not write out what was buffered.
constexpr int kFlushFailedStatus = 120;

/// Calls Py_FinalizeEx and ends the process as python3 does: with its streams flushed, by SIGINT
/// where `interrupted` (so that a shell sees it), and otherwise with `status`.
[[noreturn]] void finalize_and_exit(int status, bool interrupted);

/// Ends a template, which has nothing of its own: what was preloaded is not taken apart, as that
/// would write to each page that it shares with its children.
[[noreturn]] void finalize_template_and_exit(int status);

/// Prepares, in the template, how its children leave. `first_builtins` is what CPython makes of
/// builtins when it has taken the modules out: a copy from its start. `collect` is gc.collect.
/// `leave_to_python` is called where CPython is to take the interpreter apart after all. Returns
/// false with an exception set.
bool prepare_departures(PyObject* first_builtins, PyObject* collect, void (*leave_to_python)());

/// What a child has to end before it leaves.
struct DeparturePlan {
    /// No code of the program runs between `plan_departure` and the flush of the streams by
    /// Py_FinalizeEx.
    bool is_last = true;
    /// What ImageSearch has found.
    Ends of_image = Ends::none, of_program = Ends::none;
    bool image_has_finalizers = false;

    bool ends_objects() const {
        return of_image != Ends::none || of_program != Ends::none || image_has_finalizers;
    }
};

/// Decides, in a child, how it leaves; it is called by atexit. Returns false where CPython has to
/// do it all.
bool plan_departure(const DeparturePlan& plan);

}  // namespace warmfork::python
