// How a warm child's interpreter ends: all that has an end gets it, and the rest costs nothing.
//
// What the template has made is frozen, for good reason: no collection in a child writes to it. But
// neither would the last one take it apart. Modules and their functions refer to each other, so
// what a child has hung on them, and does not free itself, would never end: a file would keep what
// it has buffered. To unfreeze everything is right, and dear: each object is written to, and so
// each page copied. Therefore the child first looks, without writing. If nothing that has an end
// hangs on the image, nobody can tell that the image is left as it is.
#pragma once

#include <Python.h>

namespace warmfork::python {

/// Takes a reference that a child gives up when it is finalized.
void keep_until_finalized(PyObject* object);

/// freeze_image(types, class, generators, namespaces, is_last): gc.freeze() of all there is, in the
/// template. `types`: whose objects end as what they hold does, without anything to be seen.
/// `class`: any that Python code has defined. `generators`: those that would do nothing at their
/// end. `namespaces`: our own, which no code needs when a child is finalized; cleared then.
/// `is_last`: does `finalize_image` run after all else that atexit calls? A collection has been
/// done, and nothing is frozen yet, except in a layer, which calls it again for all that is there
/// then; there `is_last` does not count.
PyObject* freeze_image(PyObject* module, PyObject* arguments);

/// In the template, before it serves: notes what is frozen.
void take_census();

/// In a child, before its first own object. False with an exception set.
bool begin_own_objects();

/// For atexit, before all others, so that it is called last. Does nothing in a template.
PyObject* finalize_image(PyObject* module, PyObject* none);

}  // namespace warmfork::python
