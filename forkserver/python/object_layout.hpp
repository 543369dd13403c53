// Where in memory an object keeps what it refers to.
#pragma once

#define PY_SSIZE_T_CLEAN
#define Py_LIMITED_API 0x03090000
#include <Python.h>

#include <cstddef>
#include <cstdint>
#include <span>
#include <unordered_map>
#include <unordered_set>
#include <vector>

namespace warmfork::python {

// A dictionary has the address of its table here, in all versions that we know.
inline constexpr std::size_t kDictionaryTable = 4 * sizeof(void*);

/// A part of memory.
struct Extent {
    std::uintptr_t address;
    std::size_t size;  ///< in bytes
};

/// Where objects that the collector tracks keep their references. None of this is part of the
/// stable ABI: it is for versions that we know, and each object is checked for having all its
/// references there.
class ObjectLayouts {
  public:
    /// `fixed` is a list of types whose objects refer to the same as long as they live.
    /// `in_one_piece` is one of types whose objects keep all their references in themselves; types
    /// whose objects are types are of this kind, too. `of_python` is any class that Python code has
    /// defined.
    void know(PyObject* fixed, PyObject* in_one_piece, PyObject* of_python);
    /// Returns the parts of memory that have its references; one of them has whatever tells that
    /// there are more. There are none where the references never change, and it is null where we do
    /// not know. It is good until the next call. `referents` are all that the object refers to, as
    /// it names them. May throw std::bad_alloc.
    const std::vector<Extent>* parts_of(PyObject* object,
                                        std::span<const PyObject* const> referents);

  private:
    enum class Kind : char {
        unknown,
        fixed,
        in_one_piece,
        with_table,       ///< has the address of its other part, whose size it tells
        with_attributes,  ///< of a class of Python code, whose attributes may lie somewhere else
    };
    struct Layout {
        Kind kind = Kind::unknown;
        std::size_t size = 0, item_size = 0;
        std::size_t table = 0;  ///< where the address is
    };

    const Layout& layout_of(PyTypeObject* type);
    Layout find_layout(PyTypeObject* type) const;
    bool is_of_python(PyTypeObject* type) const;
    Kind kind_of(PyTypeObject* type) const;
    bool find_parts(PyObject* object, const Layout& layout);
    bool hold(std::span<const PyObject* const> referents) const;

    std::unordered_set<PyTypeObject*> fixed_, in_one_piece_;
    void *python_dealloc_ = nullptr, *python_traverse_ = nullptr;
    bool is_known_version_ = false;
    std::unordered_map<PyTypeObject*, Layout> layouts_;
    std::vector<Extent> parts_, readable_;
};

}  // namespace warmfork::python
