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

// Where a dictionary has the address of its table, in all versions that we know.
inline constexpr std::size_t kDictionaryTable = 4 * sizeof(void*);

/// A part of memory.
struct Extent {
    std::uintptr_t address;
    std::size_t size;  ///< in bytes
};

/// Of objects that the collector tracks. None of this is part of the stable ABI: it is for versions
/// that we know, and of each object it has to be found true that all its references lie there.
class ObjectLayouts {
  public:
    /// `fixed`: a list of types whose objects refer to the same as long as they live.
    /// `in_one_piece`: of types whose objects have nothing anywhere else that they would refer to
    /// something from; those of types of types are of this kind, too. `of_python`: any class that
    /// Python code has defined.
    void know(PyObject* fixed, PyObject* in_one_piece, PyObject* of_python);
    /// One of them has in it whatever tells that there are more references. Empty: that does not
    /// change. Null: we do not know. Good until the next call. `referents`: all that it refers to,
    /// as it names them. May throw std::bad_alloc.
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
