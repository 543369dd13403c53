// The objects that a template has frozen (gc.freeze): what is there, and what a child has hung on
// them since.
#pragma once

#include <Python.h>

#include <cstddef>
#include <unordered_set>
#include <vector>

namespace warmfork::python {

/// gc.freeze() of all there is, in the template. A collection has been done, and nothing is frozen
/// yet, except in a layer, which is forked from a template and calls it again. `types`: whose
/// objects end as what they hold does, without anything to be seen. `of_python`: any class that
/// Python code has defined. `idle_generators`: a list of those that would do nothing at their end.
/// False with an exception set.
bool freeze(PyObject* types, PyObject* of_python, PyObject* idle_generators);

/// In the template, before it serves: notes what is frozen, for `ImageSearch`.
void take_census();

/// Takes a reference, of which the collector knows nothing, until `let_go`.
void keep_until_finalized(PyObject* object);
/// What these refer to would not be collected. Not to be used any more: types, generators and what
/// else has been given to `freeze`.
void let_go();

/// False where the interpreter keeps its objects in another way than we know.
bool can_search_image();
/// Has the program called gc.unfreeze()?
bool is_unfrozen();

/// sys.__stdin__, __stdout__ or __stderr__ of the image, by its descriptor; borrowed. Null: none.
PyObject* stream_of_image(std::size_t descriptor);

/// Looks, in a child and without writing, for what has an end and hangs on the image: would anybody
/// see that the image is not taken apart? May throw std::bad_alloc.
class ImageSearch {
  public:
    ImageSearch();

    /// Does the program hold more objects than the image? To search them would save nothing.
    bool is_too_large() const;
    /// Is it tracked by the collector, and not frozen?
    bool is_own(PyObject* object) const { return own_.contains(object); }
    /// Or code of the program, as __del__, that runs when any of its objects ends.
    bool finds_end();

  private:
    static int visit(PyObject* object, void* self);
    bool runs_code_at_end(PyObject* object) const;
    bool finds_end_in_image();

    std::unordered_set<PyObject*> own_;
    std::vector<const PyObject*> streams_;
    std::unordered_set<const PyObject*> reached_;
    std::vector<PyObject*> to_visit_;
};

}  // namespace warmfork::python
