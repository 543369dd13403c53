// How a warm child's interpreter ends: all that has an end comes to it, and the rest costs nothing.
//
// What the template has made is frozen, for good reason: no collection in a child writes to it. But
// neither would the last one take it apart. Modules and their functions refer to each other, so
// what a child has hung on them, and does not free itself, would never end: a file would keep what
// it has buffered. To unfreeze everything would be right, but is expensive: each object is written
// to, and so each page copied. Therefore the child first looks, without writing. If no code of the
// program will run when its objects end, and nothing that has an end hangs on the image, nobody can
// tell that the image is left as it is.
#pragma once

#include <Python.h>

namespace warmfork::python {

/// freeze_image(*, first_builtins, namespaces, is_last, and the members of `Kinds`) is `freeze`, in
/// the template. `first_builtins` is as of `prepare_departures`. `namespaces` are our own, which no
/// code needs when a child is finalized; they are cleared where the image is unfrozen. `is_last`
/// says whether `finalize_image` is called after all else of atexit; in a layer it does not count.
PyObject* freeze_image(PyObject* module, PyObject* arguments, PyObject* names);

/// Must be called in a child before it has an object of its own. Returns false with an exception
/// set.
bool begin_own_objects();

/// Is registered with atexit before all others, so that it is called after them. Does nothing in a
/// template.
PyObject* finalize_image(PyObject* module, PyObject* none);

}  // namespace warmfork::python
