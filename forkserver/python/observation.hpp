// What an import asks of the process that it runs in: see warmfork/_observer.py.
#pragma once

#include <Python.h>

namespace warmfork::python {

/// Returns a tuple of the names of what can be asked of a process, in the order of Asked in
/// protocol/preload_interface.hpp.
PyObject* names_of_asked();

/// observe() -> a tuple of how often each of `names_of_asked` was asked for until now, a number
/// that grows when programs that were started end, how much was written to the template's output,
/// and real and monotonic time, in nanoseconds. Writes out what C's streams have buffered of that.
PyObject* observe(PyObject* module, PyObject* none);

/// drawn() -> the random bytes that were drawn until now, as a list of bytes objects, but for those
/// that nobody has seen.
PyObject* drawn(PyObject* module, PyObject* none);

/// made() -> (list, is it whole?): a list of (absolute path, path as it was given) of what was made
/// by relative ones until now, or written to, or removed: see MadeFile.
PyObject* made(PyObject* module, PyObject* none);

/// descriptors_in_the_way() -> {number}: those for which the gate would refuse this process, and
/// warmfork's own. OSError: they cannot be listed.
PyObject* descriptors_in_the_way(PyObject* module, PyObject* none);
/// resume_recording() goes on recording in a forked copy of the template.
PyObject* resume_recording(PyObject* module, PyObject* none);

/// list_for(what) -> what directories were listed for before: see PreloadInterface.
PyObject* list_for(PyObject* module, PyObject* what);

/// drop_listing(path) drops the record that this directory was listed until now.
PyObject* drop_listing(PyObject* module, PyObject* path);

/// askers() -> a list of (path of a library, bits) of who has called: bit n is name n of
/// `names_of_asked`. One that is no path stands for all that were too many.
PyObject* askers(PyObject* module, PyObject* none);

}  // namespace warmfork::python
