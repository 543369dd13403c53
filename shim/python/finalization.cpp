#define PY_SSIZE_T_CLEAN
#define Py_LIMITED_API 0x03090000
#include "finalization.hpp"

#include <dlfcn.h>

#include <algorithm>
#include <array>
#include <bit>
#include <cstdint>
#include <initializer_list>
#include <span>
#include <unordered_map>
#include <unordered_set>
#include <utility>
#include <vector>

#include "python_objects.hpp"

namespace warmfork::python {
namespace {

/// What lies in front of each object that the collector tracks, in a ring with the others of its
/// generation: _PyGC_Head. Neither this nor what follows is part of the stable ABI, but they are
/// the same in the versions below; `freeze_and_find_generations` checks that.
struct CollectorHead {
    std::uintptr_t next, previous;
};
constexpr std::uintptr_t kFlagsOfHead = 3;
constexpr long kFirstVersion = 0x030a0000;   // 3.9 does not tell the slots of static types
constexpr long kVersionBeyond = 0x030e0000;  // 3.14 has another collector

/// struct gc_generation.
struct Generation {
    CollectorHead ring;
    int threshold, count;
};

/// A part of struct _gc_runtime_state.
struct Generations {
    Generation collected[3];
    const CollectorHead* youngest;  ///< the ring of the first of them
    Generation frozen;
};

const CollectorHead* head_in(std::uintptr_t field) {
    return reinterpret_cast<const CollectorHead*>(field & ~kFlagsOfHead);
}

/// Calls `visit` with each object of a generation, until it returns something else than 0.
template <typename Visit>
int for_each_object(const Generation& generation, Visit visit) {
    for (const CollectorHead* head = head_in(generation.ring.next); head != &generation.ring;
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
    traverseproc traverse;  ///< of those that the collector tracks
};

class Types {
  public:
    void know(PyObject* known, PyObject* of_python) {
        for (Py_ssize_t i = 0; i < PyList_Size(known); ++i) {
            PyObject* type = PyList_GetItem(known, i);  // borrowed
            keep_until_finalized(type);
            known_.insert(reinterpret_cast<PyTypeObject*>(type));
        }
        python_dealloc_ = PyType_GetSlot(reinterpret_cast<PyTypeObject*>(of_python), Py_tp_dealloc);
    }

    /// What is remembered of types stays true: those of the image are never collected, and in a
    /// child the first question is asked when no other code runs any more.
    const Type& of(PyObject* object) {
        PyTypeObject* type = Py_TYPE(object);
        Recent& recent = recent_[reinterpret_cast<std::uintptr_t>(type) / 16 % recent_.size()];
        if (recent.type != type) {
            const auto [found, is_new] = found_.try_emplace(type);
            if (is_new) found->second = {end_of(type), traverse_of(type)};
            recent = {type, found->second};
        }
        return recent.found;
    }

  private:
    struct Recent {
        PyTypeObject* type = nullptr;
        Type found{};
    };

    static traverseproc traverse_of(PyTypeObject* type) {
        return reinterpret_cast<traverseproc>(PyType_GetSlot(type, Py_tp_traverse));
    }

    End end_of(PyTypeObject* type) const {
        if (!known_.contains(type) &&
            (PyType_GetSlot(type, Py_tp_finalize) || PyType_GetSlot(type, Py_tp_del)))
            return End::finalizer;
        const bool is_collected = PyType_GetFlags(type) & Py_TPFLAGS_HAVE_GC;
        // What Python code has defined ends as the type of C that it is derived from.
        while (!known_.contains(type)) {
            if (PyType_GetSlot(type, Py_tp_dealloc) != python_dealloc_) return End::unknown;
            type = static_cast<PyTypeObject*>(PyType_GetSlot(type, Py_tp_base));
        }
        return is_collected ? End::contents : End::nothing;
    }

    std::unordered_set<PyTypeObject*> known_;
    void* python_dealloc_ = nullptr;
    std::unordered_map<PyTypeObject*, Type> found_;
    std::array<Recent, 1024> recent_{};
};

/// One object of the image, and which ones it referred to when it was frozen.
struct Frozen {
    const PyObject* object;
    std::uint64_t referents;  ///< their addresses, hashed in order
};

/// A set of addresses that takes no others for members more often than now and then: a Bloom filter
/// with one hash.
class Addresses {
  public:
    /// Empties it, and makes room for that many.
    void reset(std::size_t count) { bits_.assign(std::bit_ceil(count) * kBitsEach / 64, 0); }
    void add(const PyObject* object) { word(object) |= bit(object); }
    bool may_contain(const PyObject* object) { return word(object) & bit(object); }

  private:
    static constexpr std::size_t kBitsEach = 16;

    static std::uint64_t hash(const PyObject* object) {
        return reinterpret_cast<std::uintptr_t>(object) * 0x9e3779b97f4a7c15 >> 16;
    }
    std::uint64_t& word(const PyObject* object) { return bits_[hash(object) / 64 % bits_.size()]; }
    static std::uint64_t bit(const PyObject* object) {
        return std::uint64_t{1} << hash(object) % 64;
    }

    std::vector<std::uint64_t> bits_;
};

struct Image {
    const Generations* generations = nullptr;  ///< null: they cannot be read
    bool is_left_last = false;                 ///< see freeze_image
    bool has_finalizers = false;               ///< others than those of the standard streams
    PyObject* idle_generators = nullptr;       ///< a list; do not count for that
    std::vector<PyObject*> namespaces;         ///< ours: dictionaries
    std::vector<Frozen> objects;               ///< in the order of their ring
    Addresses members;                         ///< of all that these refer to
    /// Those with an End::unknown that the collector does not know either: never freed, so that no
    /// other object has the address of one.
    std::unordered_set<const PyObject*> unknown;
    Types types;
};
Image image;

/// References of ours that the collector does not see.
std::vector<PyObject*> kept;

/// Of a child: made after all that is frozen. Null: this is no child.
PyObject* first_own_object = nullptr;

const Type& type_of(PyObject* object) {
    return image.types.of(object);
}

bool ends_by_itself(End end) {
    return end == End::unknown || end == End::finalizer;
}

/// The collector leaves out those of them that hold nothing that it would track. Others that it
/// does not track, as types of C, are no concern.
bool is_untracked_container(PyObject* object) {
    return (PyDict_CheckExact(object) || PyTuple_CheckExact(object)) &&
           !PyObject_GC_IsTracked(object);
}

/// A look at what an object refers to that reads none of it.
struct Glance {
    std::uint64_t hash = 0;
    std::span<const PyObject* const> sought;  ///< by address
    bool is_found = false;                    ///< one of these

    explicit Glance(PyObject* object, std::span<const PyObject* const> sought = {})
        : sought(sought) {
        type_of(object).traverse(object, take_in, this);
    }

    static int take_in(PyObject* referent, void* argument) {
        auto& self = *static_cast<Glance*>(argument);
        self.hash = (self.hash ^ reinterpret_cast<std::uintptr_t>(referent)) * 0x9e3779b97f4a7c15;
        self.hash ^= self.hash >> 29;
        self.is_found |= !self.sought.empty() &&
                         std::binary_search(self.sought.begin(), self.sought.end(), referent);
        return 0;
    }
};

/// The standard streams and what they are made of: every child puts them on other files, and the
/// interpreter flushes them.
class StandardStreams {
  public:
    StandardStreams() {
        for (const char* name : {"__stdin__", "__stdout__", "__stderr__"}) {
            PyObject* stream = PySys_GetObject(name);  // borrowed
            if (!stream || stream == Py_None) continue;
            Reference buffer(PyObject_GetAttrString(stream, "buffer"));
            Reference raw(buffer ? PyObject_GetAttrString(buffer.get(), "raw") : nullptr);
            for (PyObject* part : {stream, buffer.get(), raw.get()}) parts_.push_back(part);
            PyErr_Clear();  // unbuffered, or closed
        }
    }
    bool contain(const PyObject* object) const {
        return std::find(parts_.begin(), parts_.end(), object) != parts_.end();
    }

  private:
    std::vector<const PyObject*> parts_;  // kept by each other
};

/// Objects to be looked into, each once. No recursion: what they hold may be nested at any depth.
class Worklist {
  public:
    void add(PyObject* object) {
        if (seen_.insert(object).second) left_.push_back(object);
    }
    /// Until `visit`, a visitproc, returns something else than 0; returns that.
    int traverse_all(visitproc visit, void* argument) {
        while (!left_.empty()) {
            PyObject* object = left_.back();
            left_.pop_back();
            if (const int result = type_of(object).traverse(object, visit, argument)) return result;
        }
        return 0;
    }

  private:
    std::unordered_set<const PyObject*> seen_;
    std::vector<PyObject*> left_;
};

/// In the template: notes what is frozen.
class Census {
  public:
    void take(long count) {
        image.has_finalizers = false;
        image.objects.clear();
        image.objects.reserve(static_cast<std::size_t>(count));
        // As a rule they refer to twice as many, each from several places.
        image.members.reset(image.objects.capacity() * 2);
        for_each_object(image.generations->frozen, [this](PyObject* object) {
            image.objects.push_back({object, Glance(object).hash});
            note_end(object);
            return type_of(object).traverse(object, note, this);
        });
        untracked_.traverse_all(note, this);
    }

  private:
    void note_end(PyObject* object) {
        if (type_of(object).end == End::finalizer && !streams_.contain(object) &&
            !is_idle_generator(object))
            image.has_finalizers = true;
    }
    static int note(PyObject* object, void* argument) {
        auto& self = *static_cast<Census*>(argument);
        image.members.add(object);
        const End end = type_of(object).end;
        if (end == End::nothing || PyObject_GC_IsTracked(object)) return 0;
        self.note_end(object);
        if (is_untracked_container(object))
            self.untracked_.add(object);
        else if (end == End::unknown && image.unknown.insert(object).second)
            keep_until_finalized(object);
        return 0;
    }
    static bool is_idle_generator(const PyObject* object) {
        for (Py_ssize_t i = 0; i < PyList_Size(image.idle_generators); ++i)
            if (PyList_GetItem(image.idle_generators, i) == object) return true;
        return false;
    }

    const StandardStreams streams_;
    Worklist untracked_;
};

/// In a child: looks for what has an end, is its own, and hangs on the image.
class Search {
  public:
    Search() {
        for (const Generation& generation : image.generations->collected)
            for_each_object(generation, [this](PyObject* object) {
                own_.insert(object);
                return is_too_large();
            });
    }

    /// Does the program hold more than the image? To note it all takes memory, and would save
    /// little of what is to come.
    bool is_too_large() const { return own_.size() > image.objects.size(); }

    bool is_own(PyObject* object) const { return own_.contains(object); }

    /// `passed_over`: objects of the image that do not count.
    bool finds_any(std::initializer_list<const PyObject*> passed_over) {
        const std::vector<const PyObject*> sought = find_reused_addresses();
        auto known = image.objects.begin();
        const int found = for_each_object(image.generations->frozen, [&](PyObject* object) {
            // Others have been freed since.
            while (known != image.objects.end() && known->object != object) ++known;
            const Glance glance(object, sought);
            const bool is_same = known != image.objects.end() && known->referents == glance.hash;
            if ((is_same && !glance.is_found) ||
                std::find(passed_over.begin(), passed_over.end(), object) != passed_over.end())
                return 0;
            return type_of(object).traverse(object, visit, this);
        });
        return found || reached_.traverse_all(visit, this);
    }

  private:
    /// What has the address of one that was freed may have its place as well, and what refers to it
    /// looks unchanged. If that is one that only holds others it is looked into, wherever it is;
    /// the others are returned, by address.
    std::vector<const PyObject*> find_reused_addresses() {
        std::vector<const PyObject*> found;
        for (PyObject* object : own_) {
            if (!image.members.may_contain(object)) continue;
            if (ends_by_itself(type_of(object).end))
                found.push_back(object);
            else
                reached_.add(object);
        }
        std::sort(found.begin(), found.end());
        return found;
    }

    /// 1 for what was sought.
    static int visit(PyObject* object, void* argument) {
        auto& self = *static_cast<Search*>(argument);
        const End end = type_of(object).end;
        if (end == End::nothing) return 0;
        const bool is_own = self.is_own(object);
        if (ends_by_itself(end))
            return is_own ? !self.streams_.contain(object)
                          : !PyObject_GC_IsTracked(object) && !image.unknown.contains(object);
        if (is_own || is_untracked_container(object)) self.reached_.add(object);
        return 0;
    }

    const StandardStreams streams_;
    std::unordered_set<PyObject*> own_;  // what is tracked and not frozen
    Worklist reached_;
};

/// A function of the module gc. With `generation`: its argument.
Reference call_collector(const char* function, int generation = -1) {
    static PyObject* module = nullptr;
    if (!module) {
        module = Reference(PyImport_ImportModule("gc")).get();
        if (module) keep_until_finalized(module);
    }
    if (!module) return Reference(nullptr);
    return Reference(generation < 0 ? PyObject_CallMethod(module, function, nullptr)
                                    : PyObject_CallMethod(module, function, "i", generation));
}

/// How many are in the ring; -1: it is none.
long count_ring(const CollectorHead* ring) {
    long count = 0;
    for (const CollectorHead* head = ring;; ++count) {
        const CollectorHead* next = head_in(head->next);
        if (head_in(next->previous) != head) return -1;
        if (next == ring) return count;
        head = next;
    }
}

/// gc.freeze(), for the first time. False with an exception set.
bool freeze_and_find_generations() {
    // Then all objects are in the oldest generation.
    if (!call_collector("collect", 1)) return false;
    PyObject* first = PyList_New(0);  // stays
    if (!first) return false;
    const CollectorHead* head = reinterpret_cast<const CollectorHead*>(first) - 1;
    const CollectorHead* youngest = head_in(head->previous);
    const bool is_alone = head_in(head->next) == youngest && count_ring(youngest) == 1;
    if (!call_collector("freeze")) return false;
    const auto* found = reinterpret_cast<const Generations*>(youngest);
    // Of the frozen it is the first again.
    if (!is_alone || head_in(head->previous) != &found->frozen.ring || found->youngest != youngest)
        return true;
    for (const Generation& generation : found->collected)
        if (count_ring(&generation.ring) < 0) return true;
    Reference count = call_collector("get_freeze_count");
    if (count && PyLong_AsLong(count.get()) == count_ring(&found->frozen.ring))
        image.generations = found;
    return bool(count);
}

/// The collector leaves out dictionaries that hold nothing that it would track, as empty ones: what
/// is put into one later would not show in what refers to it. So these are frozen as well.
bool freeze_untracked_dictionaries() {
    const auto track = [](PyObject* object, void*) {
        if (PyDict_CheckExact(object) && !PyObject_GC_IsTracked(object)) PyObject_GC_Track(object);
        return 0;
    };
    for_each_object(image.generations->frozen, [&](PyObject* object) {
        return type_of(object).traverse(object, track, nullptr);
    });
    return bool(call_collector("freeze"));
}

bool can_read_generations() {
    const long version = PyLong_AsLong(PySys_GetObject("hexversion"));
    return version >= kFirstVersion && version < kVersionBeyond;
}

/// Outside of the stable ABI as well, and the same since Python 2.
using ThreadHead = PyThreadState* (*)(PyInterpreterState*);
using NextThread = PyThreadState* (*)(PyThreadState*);

/// Daemon threads run on for a moment.
bool has_other_threads() {
    const auto head =
        reinterpret_cast<ThreadHead>(::dlsym(RTLD_DEFAULT, "PyInterpreterState_ThreadHead"));
    const auto next = reinterpret_cast<NextThread>(::dlsym(RTLD_DEFAULT, "PyThreadState_Next"));
    return !head || !next || next(head(PyInterpreterState_Get()));
}

/// Has the program put others in their place? These may hold output that is not flushed otherwise.
bool has_other_streams() {
    return PySys_GetObject("stdout") != PySys_GetObject("__stdout__") ||
           PySys_GetObject("stderr") != PySys_GetObject("__stderr__");
}

/// The interpreter, which takes all modules apart, will not see those of the image.
void hide_modules(const Search& search, PyObject* modules,
                  std::initializer_list<PyObject*> excepted) {
    PyObject *name, *module;
    for (Py_ssize_t position = 0; PyDict_Next(modules, &position, &name, &module);) {
        if (!PyModule_Check(module) || search.is_own(module) ||
            std::find(excepted.begin(), excepted.end(), module) != excepted.end())
            continue;
        Py_INCREF(module);
        PyDict_SetItem(modules, name, Py_None);  // there is such a key, so it cannot fail
    }
}

/// Has the program begun one of the generators that were idle?
bool has_begun_generator() {
    for (Py_ssize_t i = 0; i < PyList_Size(image.idle_generators); ++i) {
        PyObject* generator = PyList_GetItem(image.idle_generators, i);  // borrowed
        const Reference suspended(PyObject_GetAttrString(generator, "gi_suspended"));
        if (suspended.get() != Py_False) return true;
    }
    return false;
}

/// Is there nothing in the image to end, and no other code that would see it left as it is? If so
/// it is kept out of the rest.
bool leave_image(Search& search) {
    if (!image.is_left_last || image.has_finalizers || has_begun_generator() ||
        has_other_threads() || has_other_streams())
        return false;
    PyObject* modules = PyImport_GetModuleDict();  // borrowed, as what follows
    PyObject *sys = PyImport_AddModule("sys"), *builtins = PyImport_AddModule("builtins");
    // These three are taken apart all the same.
    if (!sys || !builtins ||
        search.finds_any({modules, PyModule_GetDict(sys), PyModule_GetDict(builtins)}))
        return false;
    hide_modules(search, modules, {sys, builtins});
    return true;
}

/// Is nothing to be unfrozen?
bool is_finalized_frozen() {
    if (!image.generations) return false;
    const CollectorHead& frozen = image.generations->frozen.ring;
    if (head_in(frozen.next) == &frozen) return true;  // by gc.unfreeze() in the program
    Search search;
    if (search.is_too_large()) return false;
    // After gc.freeze() in the program its own objects are to be left as well, as in a cold child.
    return !search.is_own(first_own_object) || leave_image(search);
}

/// What we refer to would keep what that refers to from its end, or put it off until the modules
/// that it needs are gone.
void let_go() {
    for (PyObject* object : std::exchange(kept, {})) Py_DECREF(object);
    for (PyObject* dictionary : std::exchange(image.namespaces, {})) {
        PyDict_Clear(dictionary);
        Py_DECREF(dictionary);
    }
}

}  // namespace

void keep_until_finalized(PyObject* object) {
    Py_INCREF(object);
    kept.push_back(object);
}

PyObject* freeze_image(PyObject*, PyObject* arguments) {
    PyObject *types, *of_python, *idle_generators, *namespaces;
    int is_last;
    if (!PyArg_ParseTuple(arguments, "OOOOp", &types, &of_python, &idle_generators, &namespaces,
                          &is_last))
        return nullptr;
    first_own_object = nullptr;
    for (Py_ssize_t i = 0; i < PyList_Size(namespaces); ++i) {
        image.namespaces.push_back(PyList_GetItem(namespaces, i));
        Py_INCREF(image.namespaces.back());
    }
    keep_until_finalized(idle_generators);
    image.idle_generators = idle_generators;
    image.types.know(types, of_python);
    const bool is_layer = image.generations != nullptr;
    if (is_layer || !can_read_generations()) {
        if (!call_collector("freeze")) return nullptr;
    } else {
        image.is_left_last = is_last;
        if (!freeze_and_find_generations()) return nullptr;
    }
    if (image.generations && !freeze_untracked_dictionaries()) return nullptr;
    Py_RETURN_NONE;
}

void take_census() {
    if (image.generations) Census().take(count_ring(&image.generations->frozen.ring));
}

bool begin_own_objects() {
    first_own_object = PyList_New(0);
    return first_own_object != nullptr;
}

PyObject* finalize_image(PyObject*, PyObject*) {
    if (!first_own_object) Py_RETURN_NONE;
    // With a frame this is not Py_FinalizeEx, but atexit._run_exitfuncs: the program goes on.
    const bool is_at_end = !PyEval_GetFrame();
    if (is_at_end && is_finalized_frozen()) Py_RETURN_NONE;
    PyErr_Clear();
    if (!call_collector("unfreeze")) return nullptr;
    if (is_at_end) let_go();
    Py_RETURN_NONE;
}

}  // namespace warmfork::python
