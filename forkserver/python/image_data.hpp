// What a template has noted of its image, and a child reads. It is shared by frozen_image.cpp,
// image_roots.cpp, image_search.cpp and finalizer_order.cpp alone.
#pragma once

#define PY_SSIZE_T_CLEAN
#define Py_LIMITED_API 0x03090000
#include <Python.h>

#include <algorithm>
#include <array>
#include <bit>
#include <cstddef>
#include <cstdint>
#include <span>
#include <unordered_map>
#include <unordered_set>
#include <vector>

#include "python/image_pages.hpp"
#include "python/object_layout.hpp"
#include "python/python_objects.hpp"

namespace warmfork::python {

/// What lies in front of each object that the collector tracks, in a ring with the others of its
/// generation, as _PyGC_Head. Neither this nor what follows is part of the stable ABI, but they are
/// the same from 3.9 to 3.15; `freeze_and_find_generations` looks whether they are. 3.13 aligns
/// them to 4.
struct [[gnu::packed, gnu::aligned(4)]] CollectorHead {
    std::uintptr_t next, previous;
};
constexpr std::uintptr_t kFlagsOfHead = 3;
constexpr std::uintptr_t kCollecting = 2;  ///< of `previous`; set by a collection while it lasts

/// It is laid out as struct gc_generation.
struct Generation {
    CollectorHead ring;
    int threshold, count;
};

/// struct _gc_runtime_state has these three, before 3.14 a pointer to the first, and then the
/// frozen.
constexpr std::size_t kGenerations = 3;

inline const CollectorHead* head_in(std::uintptr_t field) {
    return reinterpret_cast<const CollectorHead*>(field & ~kFlagsOfHead);
}

/// Calls `visit` with each object of a generation, until it returns something else than 0.
template <typename Visit>
int for_each_object(const CollectorHead& ring, Visit visit) {
    for (const CollectorHead* head = head_in(ring.next); head != &ring;
         head = head_in(head->next)) {
        const void* object = head + 1;
        if (const int result = visit(static_cast<PyObject*>(const_cast<void*>(object))))
            return result;
    }
    return 0;
}

/// How an object ends.
enum class End : char {
    nothing,    ///< it is freed, and holds no others
    contents,   ///< as what it holds
    unknown,    ///< by code in C of which we know nothing
    finalizer,  ///< by __del__, or the like in C
};

struct Type {
    End end;
    bool has_other_end;     ///< beside its finalizer, by code in C of which we know nothing
    traverseproc traverse;  ///< of those that the collector tracks
};

class Types {
  public:
    void know(const Kinds& kinds) {
        add_types(kinds.without_end, known_);
        add_types(kinds.finalized, finalized_);
        add_types(kinds.streams_in_memory, streams_in_memory_);
        quiet_ = kinds.quiet;
        keep_until_finalized(quiet_);
        python_dealloc_ =
            PyType_GetSlot(reinterpret_cast<PyTypeObject*>(kinds.of_python), Py_tp_dealloc);
        clear();
    }

    /// Drops all, as types may have gone, and others may have their addresses.
    void clear() {
        found_.clear();
        recent_ = {};
    }

    /// Says that what is asked about from here on, in a child, is not frozen: see `drop_own`.
    void begin_own() { count_of_image_ = found_.size(); }
    /// Drops the program's own types. Those of the image are found anew only where there were
    /// others.
    void drop_own() {
        if (found_.size() != count_of_image_) clear();
    }

    /// Describes an object's type. What is remembered stays true in a child as long as the image is
    /// frozen, which keeps its types, but for `have_new_finalizer`.
    const Type& of(PyObject* object) {
        PyTypeObject* type = Py_TYPE(object);
        Recent& recent = recent_[reinterpret_cast<std::uintptr_t>(type) / 16 % recent_.size()];
        if (recent.type != type) {
            const auto [found, is_new] = found_.try_emplace(type);
            if (is_new) found->second = describe(type);
            recent = {type, found->second};
        }
        return recent.found;
    }

    /// Is it the name of a module, or of a type with that of its module, of which we know that what
    /// is defined there ends without being seen?
    bool is_quiet_name(const Reference& name) const {
        return name && PyUnicode_CheckExact(name.get()) && PySet_Contains(quiet_, name.get()) == 1;
    }

    /// Has a class got a __del__ since it was asked about?
    bool have_new_finalizer() const {
        return std::any_of(found_.begin(), found_.end(), [this](const auto& entry) {
            return entry.second.end != End::finalizer && has_finalizer(entry.first);
        });
    }

  private:
    struct Recent {
        PyTypeObject* type = nullptr;
        Type found{};
    };

    static void add_types(PyObject* types, std::unordered_set<PyTypeObject*>& ret_types) {
        for (Py_ssize_t i = 0; i < PyList_Size(types); ++i) {
            PyObject* type = PyList_GetItem(types, i);  // borrowed
            keep_until_finalized(type);
            ret_types.insert(reinterpret_cast<PyTypeObject*>(type));
        }
    }

    static traverseproc traverse_of(PyTypeObject* type) {
        return reinterpret_cast<traverseproc>(PyType_GetSlot(type, Py_tp_traverse));
    }

    bool has_finalizer(PyTypeObject* type) const {
        return (PyType_GetSlot(type, Py_tp_finalize) || PyType_GetSlot(type, Py_tp_del)) &&
               !known_.contains(type) && !closes_in_memory(type);
    }

    /// Is it derived from one of the streams in memory, and closed as that is?
    bool closes_in_memory(PyTypeObject* type) const {
        const Reference bases = plain_attribute(reinterpret_cast<PyObject*>(type), "__mro__");
        for (Py_ssize_t i = 0; bases && i < PyTuple_Size(bases.get()); ++i) {
            PyObject* base = PyTuple_GetItem(bases.get(), i);  // borrowed
            auto* const base_type = reinterpret_cast<PyTypeObject*>(base);
            if (streams_in_memory_.contains(base_type))
                return PyType_GetSlot(type, Py_tp_getattro) ==
                       PyType_GetSlot(base_type, Py_tp_getattro);
            for (const char* name : {"__del__", "close", "closed", "flush"})
                if (plain_attribute(base, name)) return false;
        }
        return false;
    }

    /// Only types that C code has defined are looked at: others may say of themselves that they are
    /// of any module.
    bool is_quiet(PyTypeObject* type) const {
        if (PyType_GetSlot(type, Py_tp_dealloc) == python_dealloc_) return false;
        const Reference module = plain_attribute(reinterpret_cast<PyObject*>(type), "__module__");
        if (is_quiet_name(module)) return true;
        const Reference name = plain_attribute(reinterpret_cast<PyObject*>(type), "__name__");
        return module && name &&
               is_quiet_name(Reference(PyUnicode_FromFormat("%S.%S", module.get(), name.get())));
    }

    Type describe(PyTypeObject* type) const {
        const End end = end_without_finalizer(type);
        return {has_finalizer(type) ? End::finalizer : end, end == End::unknown, traverse_of(type)};
    }

    End end_without_finalizer(PyTypeObject* type) const {
        const bool is_collected = PyType_GetFlags(type) & Py_TPFLAGS_HAVE_GC;
        // What Python code has defined ends as the type of C that it is derived from. Its objects
        // refer to their class, at least: that must show.
        for (; !known_.contains(type) && !finalized_.contains(type) && !is_quiet(type);
             type = static_cast<PyTypeObject*>(PyType_GetSlot(type, Py_tp_base)))
            if (!is_collected || PyType_GetSlot(type, Py_tp_dealloc) != python_dealloc_)
                return End::unknown;
        return is_collected ? End::contents : End::nothing;
    }

    std::unordered_set<PyTypeObject*> known_, finalized_, streams_in_memory_;
    PyObject* quiet_ = nullptr;  ///< a set of names
    void* python_dealloc_ = nullptr;
    std::size_t count_of_image_ = 0;
    std::unordered_map<PyTypeObject*, Type> found_;
    std::array<Recent, 1024> recent_{};
};

/// A set of addresses that only now and then takes another one for a member: a Bloom filter with
/// one hash.
class Addresses {
  public:
    /// Empties it, and makes room for that many.
    void reset(std::size_t count) { bits_.assign(std::bit_ceil(count) * kBitsEach / 64, 0); }
    void clear() { std::fill(bits_.begin(), bits_.end(), 0); }
    void add(const PyObject* object) { bits_[index(object)] |= bit(object); }
    bool may_contain(const PyObject* object) const { return bits_[index(object)] & bit(object); }

  private:
    static constexpr std::size_t kBitsEach = 32;

    static std::uint64_t hash(const PyObject* object) {
        return reinterpret_cast<std::uintptr_t>(object) * 0x9e3779b97f4a7c15 >> 16;
    }
    std::size_t index(const PyObject* object) const { return hash(object) / 64 % bits_.size(); }
    static std::uint64_t bit(const PyObject* object) {
        return std::uint64_t{1} << hash(object) % 64;
    }

    std::vector<std::uint64_t> bits_;
};

/// One object of the image, and which ones it referred to when the template began to serve.
struct Frozen {
    const PyObject* object;
    std::uint64_t referents;  ///< their addresses, hashed in order
};

constexpr std::array kStreamNames = {"__stdin__", "__stdout__", "__stderr__"};

struct Image {
    const Generation* collected = nullptr;  ///< kGenerations of them, from the youngest on
    const CollectorHead* frozen = nullptr;  ///< null: objects cannot be read
    bool has_untracked_finalizers = false;  ///< of objects that the collector does not know
    PyTypeObject *generator_type = nullptr, *context_type = nullptr;
    /// Objects that the collector does not know may refer to anything by these attributes.
    std::unordered_map<PyTypeObject*, PyObject*> visited;
    std::unordered_set<PyTypeObject*> file_types;  ///< of the module io, which keeps them
    std::unordered_set<PyTypeObject*> descriptor_types;
    std::unordered_set<void*> quiet_functions;  ///< callbacks in C that forget something, no more
    const PyObject *of_system = nullptr, *of_builtins = nullptr;  ///< dictionaries of the modules
    std::array<PyObject*, kStreamNames.size()> streams{};
    std::vector<Frozen> objects;  ///< in the order of their ring
    ImagePages pages;             ///< of these, in this order
    ObjectLayouts layouts;
    Addresses members;  ///< of all that these refer to
    Addresses reused;   ///< for a search, which had better not ask for so much memory
    /// Objects to which somebody refers whom the collector does not know, and what hangs on them,
    /// by their addresses: they outlive the collection that follows when the modules have been
    /// taken out.
    std::vector<const PyObject*> held;
    bool holds(const PyObject* object) const {
        return std::binary_search(held.begin(), held.end(), object);
    }
    /// The modules in sys.modules, but for __main__, which is the child's.
    std::vector<const PyObject*> modules;
    /// Dictionaries of our own modules, which no program refers to.
    std::unordered_set<const PyObject*> own_namespaces;
    /// Objects with an End::unknown that the collector does not know either. They are never freed,
    /// so that no other object has the address of one.
    std::unordered_set<const PyObject*> unknown;
    std::vector<PyObject*> kept;  ///< by us, until the image is taken apart
    Types types;
};
extern Image image;

inline const Type& type_of(PyObject* object) {
    return image.types.of(object);
}

/// Calls `visit` with each object of the program, until it returns something else than 0.
template <typename Visit>
bool any_own(Visit visit) {
    for (std::size_t i = 0; i < kGenerations; ++i)
        if (for_each_object(image.collected[i].ring, visit)) return true;
    return false;
}

/// Returns the address in C of a function that is written in C.
inline void* function_of(PyObject* function) {
    return reinterpret_cast<void*>(PyCFunction_GetFunction(function));
}

/// Is it a container that the collector leaves out, as it holds nothing that it would track? Others
/// that it does not track, as types of C, are no concern.
bool is_untracked_container(PyObject* object);

/// Returns the standard streams of the image, which each child puts on other files and which are
/// flushed in any case, and what multiprocessing puts in the place of stdin.
std::vector<const PyObject*> parts_of_streams();

/// Sets `Image::held`, in the template, from all objects that are noted. Takes the modules and what
/// else CPython takes out first for gone. Exit handlers that have been registered count as holding
/// what they refer to, though they are forgotten by then. May throw std::bad_alloc.
void find_held();

/// Is this the name of something that CPython takes out of sys or builtins before all else?
bool is_taken_first(PyObject* name);

bool contains(std::span<const PyObject* const> objects, const PyObject* object);

/// Does this object of the image end by itself, so that it cannot be left as it is?
bool has_finalizer(PyObject* object, std::span<const PyObject* const> streams);

/// A digest of which objects one refers to. It reads none of them.
struct ReferentDigest {
    const Addresses* sought = nullptr;
    std::uint64_t hash = 0;
    bool may_have_found = false;  ///< one of those that are sought

    explicit ReferentDigest(PyObject* object, const Type& type, const Addresses* objects = nullptr)
        : sought(objects) {
        type.traverse(object, add_referent, this);
    }

    static int add_referent(PyObject* referent, void* argument) {
        auto& self = *static_cast<ReferentDigest*>(argument);
        self.hash = (self.hash ^ reinterpret_cast<std::uintptr_t>(referent)) * 0x9e3779b97f4a7c15;
        self.hash ^= self.hash >> 29;
        self.may_have_found |= self.sought && self.sought->may_contain(referent);
        return 0;
    }
};

}  // namespace warmfork::python
