// The objects that a template has frozen (gc.freeze): what is there, and what a child has hung on
// them since.
#pragma once

#include <Python.h>

#include <cstddef>
#include <cstdint>
#include <unordered_map>
#include <unordered_set>
#include <utility>
#include <vector>

namespace warmfork::python {

/// What the search has to know of objects by their types. All is borrowed; the types live as long
/// as the interpreter.
struct Kinds {
    PyObject* without_end;  ///< types whose objects end as what they hold, and nobody sees it
    PyObject* finalized;    ///< those of which that is so when their finalizer has been called
    PyObject* quiet;  ///< names of modules, and of types with their modules: those in C end like
                      ///< that
    PyObject* of_python;        ///< any class that Python code has defined
    PyObject* generator;        ///< the type
    PyObject* context;          ///< the type, of the module contextvars
    PyObject* quiet_callbacks;  ///< of weak references: those that only forget what is no more
    PyObject* visited;          ///< (type, attribute): what an object that is not tracked refers to
    PyObject* files;            ///< types of the module io
    PyObject* streams_in_memory;     ///< likewise
    PyObject* descriptors;           ///< types of what a class has in its dictionary
    PyObject *fixed, *in_one_piece;  ///< see ObjectLayouts
};

/// Calls gc.freeze() for all there is, in the template. A collection has been done, and nothing is
/// frozen yet, except in a layer, which is forked from a template and calls this again. Returns
/// false with an exception set.
bool freeze(const Kinds& kinds);

/// Notes what is frozen, for `ImageSearch`, in the template before it serves.
void take_census();

/// Takes a reference, of which the collector knows nothing, until `let_go`.
void keep_until_finalized(PyObject* object);
/// Notes, in the template, a dictionary of a module of ours, to which no program refers.
void note_own_namespace(PyObject* dictionary);
/// Gives all these references back: what they refer to would not be collected. Types, generators
/// and whatever else has been given to `freeze` must not be used after this.
void let_go();

/// Returns false where the interpreter keeps its objects in another way than we know.
bool can_search_image();
/// Has the program called gc.unfreeze()?
bool is_unfrozen();

/// Returns sys.__stdin__, __stdout__ or __stderr__ of the image by its descriptor, borrowed, or
/// null where there is none.
PyObject* stream_of_image(std::size_t descriptor);

/// Is it a file of the module io, which is flushed, and ends, without running code of the program?
/// Null is no file.
bool is_file(PyObject* object);

struct Frozen;

/// The ends that somebody could see, each worse than the one before it.
enum class Ends : char {
    none,
    of_files,       ///< of the module io, which run no code of the program
    of_code_in_c,   ///< of which we know nothing, and which nobody else can tell apart
    of_finalizers,  ///< which the collector calls, in its order
    of_any_kind,
};

/// Looks, in a child, for what has an end that somebody could see. Writes to nothing but the
/// program's own objects, which are marked as long as this lives: no object that the collector
/// tracks may be made meanwhile, and no code of Python may run. May throw std::bad_alloc.
class ImageSearch {
  public:
    ImageSearch();
    ImageSearch(const ImageSearch&) = delete;
    ImageSearch& operator=(const ImageSearch&) = delete;

    /// Is it tracked by the collector, and not frozen?
    bool is_own(PyObject* object) const;
    /// Returns the ends of what hangs on the image. They are also of any kind where the image
    /// itself has an end that nobody but CPython can bring about, and where something with a
    /// finalizer hangs on what CPython does not collect with the modules. `is_last` says that no
    /// exit handler is left that may end what the image has, so that its finalizers count.
    Ends of_image(bool is_last);
    /// Returns, after `of_image` or `find_holders`, the objects of the image whose finalizers have
    /// not been called, from the oldest on, borrowed. Where ends of any kind have been found some
    /// are missing.
    const std::vector<PyObject*>& finalizers_of_image() const { return finalizers_of_image_; }
    /// Returns, after `of_image`, the ends of the program's other objects.
    Ends of_program();
    /// Is something of the program held by somebody whom we do not know, as an audit hook or the
    /// value of a context variable is? It keeps all that it refers to, which may be all modules.
    /// Must be called after `of_image`.
    bool is_held_elsewhere() const;

    /// Finds, when the program's modules are gone, the objects of the image that have one with an
    /// end, of whatever kind, hanging on them. Returns false where that cannot be told.
    bool find_holders();
    const std::vector<PyObject*>& holders() const { return holders_; }
    /// Returns the objects of the program with finalizers that have not been called, in the order
    /// in which the collector would call them, borrowed.
    std::vector<PyObject*> finalizers_of_program() const;
    /// Does the program have an object left that has not come to its end?
    bool finds_remaining_end() const;
    /// Has it, after `find_holders`, a function left that hangs on nothing that we know?
    bool finds_remaining_function() const;

    /// Lets go of what hangs on `holder`, as the collector would. Must not be called while a search
    /// lives. Returns false where that cannot be done.
    static bool clear(PyObject* holder);

  private:
    /// Marks the program's own objects.
    struct Marks {
        Marks();
        ~Marks();
    };

    static int visit(PyObject* object, void* self);
    static int visit_own(PyObject* object, void* self);
    static int visit_from_image(PyObject* object, void* self);
    static int visit_from_own(PyObject* object, void* self);
    int visit_untracked(PyObject* object);
    int visit_values(PyObject* dictionary);
    int find(Ends kind);
    Ends kind_of_end(PyObject* object) const;
    bool has_all_modules() const;
    bool has_callback() const;
    bool is_collected_with_modules() const;
    bool holds_finalizer() const;
    void note_holder();
    void reach(PyObject* object);
    void count(const PyObject* object);
    bool is_known_elsewhere(bool (*is_asked_about)(PyObject*)) const;
    bool has_end(PyObject* object) const;
    void note_reused();
    bool finds_end_in_image();
    bool finds_end_in_all();
    bool finds_end_in_chosen();
    bool finds_end_around(std::size_t& next);
    bool finds_end_from(PyObject* object, const Frozen* known);
    bool notes_finalizer(PyObject* object);
    bool finds_end_below();

    Marks marks_;
    std::vector<const PyObject*> streams_;
    struct Reached {
        PyObject* holder;  ///< what of the image led to it; null: one of ours
        bool is_held;
    };
    std::unordered_map<const PyObject*, Reached> reached_;
    std::vector<std::pair<PyObject*, bool>> to_visit_;  ///< and `is_held_` of it
    std::unordered_map<const PyObject*, Py_ssize_t>
        known_references_;  ///< of the image, to own functions and lists of them
    bool has_reused_ = false;
    bool ends_of_image_count_ = true;
    bool goes_on_ = false;             ///< whatever it finds
    PyObject* holder_ = nullptr;       ///< what of the image is being looked at
    bool is_held_ = false;             ///< see Image::held: is that one?
    bool held_may_have_end_ = false;   ///< does something with an end hang on one that is?
    std::vector<PyObject*> held_;      ///< of the image, by one that is, or by what hangs on it
    Ends found_ = Ends::none;          ///< of what hangs on the image
    Ends most_ = Ends::of_finalizers;  ///< where worse is found the search need not go on
    std::vector<PyObject*> holders_;
    std::unordered_set<const PyObject*> is_holder_;  ///< the same
    std::vector<PyObject*> finalizers_of_image_;
};

}  // namespace warmfork::python
