// The Python side of a template: the interpreter put right around each fork, and user code run as
// python3 runs it.
#pragma once

#include <Python.h>

namespace warmfork::python {

/// announce(): see announce_template. Raises where there is nobody to be told.
PyObject* announce(PyObject* module, PyObject* none);

/// serve([child, hook, report, description, log, obstacle, findings, restore, image]): never
/// returns to Python, neither in the template, which ends here, nor in a child; so the list is
/// emptied. `child` is the module warmfork._child, `hook` is called before each fork (None:
/// nothing), `description` says what the image was made from, `image` is for layers on it.
PyObject* serve(PyObject* module, PyObject* list);

/// The environment that this process was started with, as bytes by bytes.
PyObject* start_environment(PyObject* module, PyObject* none);

/// In a layer: what the template that it was forked from gave to `serve`; None: this is no layer.
PyObject* extended_image(PyObject* module, PyObject* none);

/// What environ holds, as bytes by bytes.
PyObject* current_environment(PyObject* module, PyObject* none);

/// keep_twister(capsule, key, position): in the template. Children seed numpy's MT19937 of this
/// capsule. `key`, `position`: its state, as numpy says. False: it is somewhere else.
PyObject* keep_twister(PyObject* module, PyObject* arguments);

/// For the benchmark: what a warm child does after its fork, done by a child that os.fork() made.
/// prepare_to_become_child(child): in the parent. become_child(arguments, [source, target, ...],
/// mailbox): in the child; does not return.
PyObject* prepare_to_become_child(PyObject* module, PyObject* child);
PyObject* become_child(PyObject* module, PyObject* arguments);

}  // namespace warmfork::python
