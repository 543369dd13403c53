#define PY_SSIZE_T_CLEAN
#define Py_LIMITED_API 0x03090000
#include "frozen_image.hpp"

#include <algorithm>
#include <array>
#include <bit>
#include <cstddef>
#include <cstdint>
#include <cstring>
#include <new>
#include <span>
#include <unordered_map>
#include <utility>

#include "python_objects.hpp"

namespace warmfork::python {
namespace {

/// What lies in front of each object that the collector tracks, in a ring with the others of its
/// generation: _PyGC_Head. Neither this nor what follows is part of the stable ABI, but they are
/// the same in the versions below; `freeze_and_find_generations` checks that. 3.13 aligns them
/// to 4.
struct [[gnu::packed, gnu::aligned(4)]] CollectorHead {
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

/// A part of struct _gc_runtime_state: these three, a pointer to the first, and then the frozen.
constexpr std::size_t kGenerations = 3;

const CollectorHead* head_in(std::uintptr_t field) {
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
        forget();
    }

    /// Types may have gone, and others have their addresses.
    void forget() {
        found_.clear();
        recent_ = {};
    }

    /// What is remembered stays true in a child, as long as the image is frozen, which keeps its
    /// types, but for `have_new_finalizer`.
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

    static traverseproc traverse_of(PyTypeObject* type) {
        return reinterpret_cast<traverseproc>(PyType_GetSlot(type, Py_tp_traverse));
    }

    bool has_finalizer(PyTypeObject* type) const {
        return (PyType_GetSlot(type, Py_tp_finalize) || PyType_GetSlot(type, Py_tp_del)) &&
               !known_.contains(type);
    }

    End end_of(PyTypeObject* type) const {
        if (has_finalizer(type)) return End::finalizer;
        const bool is_collected = PyType_GetFlags(type) & Py_TPFLAGS_HAVE_GC;
        // What Python code has defined ends as the type of C that it is derived from. Its objects
        // refer to their class, at least: that must show.
        for (; !known_.contains(type);
             type = static_cast<PyTypeObject*>(PyType_GetSlot(type, Py_tp_base)))
            if (!is_collected || PyType_GetSlot(type, Py_tp_dealloc) != python_dealloc_)
                return End::unknown;
        return is_collected ? End::contents : End::nothing;
    }

    std::unordered_set<PyTypeObject*> known_;
    void* python_dealloc_ = nullptr;
    std::unordered_map<PyTypeObject*, Type> found_;
    std::array<Recent, 1024> recent_{};
};

/// A set of addresses that takes no others for members more often than now and then: a Bloom filter
/// with one hash.
class Addresses {
  public:
    /// Empties it, and makes room for that many.
    void reset(std::size_t count) { bits_.assign(std::bit_ceil(count) * kBitsEach / 64, 0); }
    void add(const PyObject* object) { bits_[index(object)] |= bit(object); }
    bool may_contain(const PyObject* object) const { return bits_[index(object)] & bit(object); }

  private:
    static constexpr std::size_t kBitsEach = 16;

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

// There are few as a rule. With more of them more is looked at than need be.
constexpr std::size_t kMostReused = 1024;

// Objects lie all over the memory, which is what the search waits for.
constexpr std::ptrdiff_t kAhead = 16;

constexpr std::array kStreamNames = {"__stdin__", "__stdout__", "__stderr__"};

struct Image {
    const Generation* collected = nullptr;  ///< kGenerations of them, from the youngest on
    const CollectorHead* frozen = nullptr;  ///< null: objects cannot be read
    bool has_finalizers = false;
    PyObject* idle_generators = nullptr;  ///< a list
    PyTypeObject* code_type = nullptr;
    std::array<PyObject*, kStreamNames.size()> streams{};
    std::vector<Frozen> objects;  ///< in the order of their ring
    Addresses members;            ///< of all that these refer to
    /// Those with an End::unknown that the collector does not know either: never freed, so that no
    /// other object has the address of one.
    std::unordered_set<const PyObject*> unknown;
    Types types;
};
Image image;

std::vector<PyObject*> kept;

const Type& type_of(PyObject* object) {
    return image.types.of(object);
}

/// The collector leaves out those of them that hold nothing that it would track. Others that it
/// does not track, as types of C, are no concern.
bool is_untracked_container(PyObject* object) {
    return (PyDict_CheckExact(object) || PyTuple_CheckExact(object)) &&
           !PyObject_GC_IsTracked(object);
}

/// What a text stream is made of; null where it is not, as it is unbuffered, or closed.
struct Layers {
    Reference buffer, raw;

    explicit Layers(PyObject* stream)
        : buffer(PyObject_GetAttrString(stream, "buffer")),
          raw(buffer ? PyObject_GetAttrString(buffer.get(), "raw") : nullptr) {
        PyErr_Clear();
    }
    bool leave_descriptor_open() const {
        const Reference closes(raw ? PyObject_GetAttrString(raw.get(), "closefd") : nullptr);
        return closes.get() == Py_False;
    }
};

/// The standard streams of the image, which each child puts on other files and which are flushed in
/// any case; and what multiprocessing puts in the place of stdin.
std::vector<const PyObject*> parts_of_streams() {
    std::vector<const PyObject*> parts;
    const auto add = [&parts](PyObject* stream, const Layers& layers) {
        for (PyObject* part : {stream, layers.buffer.get(), layers.raw.get()})
            parts.push_back(part);
    };
    for (std::size_t i = 0; i < kStreamNames.size(); ++i)
        // The program may have closed it, or put a thing of its own in its place.
        if (image.streams[i] && PySys_GetObject(kStreamNames[i]) == image.streams[i])
            add(image.streams[i], Layers(image.streams[i]));
    PyObject *input = PySys_GetObject("stdin"), *own = image.streams[0];  // borrowed
    if (input && own && input != own && Py_TYPE(input) == Py_TYPE(own))
        if (const Layers layers(input); layers.leave_descriptor_open()) add(input, layers);
    return parts;
}

bool contains(std::span<const PyObject* const> objects, const PyObject* object) {
    return std::find(objects.begin(), objects.end(), object) != objects.end();
}

bool is_idle_generator(const PyObject* object) {
    for (Py_ssize_t i = 0; i < PyList_Size(image.idle_generators); ++i)
        if (PyList_GetItem(image.idle_generators, i) == object) return true;
    return false;
}

/// Has the program begun one of them?
bool has_begun_generator() {
    for (Py_ssize_t i = 0; i < PyList_Size(image.idle_generators); ++i) {
        PyObject* generator = PyList_GetItem(image.idle_generators, i);  // borrowed
        const Reference suspended(PyObject_GetAttrString(generator, "gi_suspended"));
        if (suspended.get() != Py_False) return true;
    }
    return false;
}

/// Of the image: does it end by itself, so that it cannot be left as it is?
bool has_finalizer(PyObject* object, std::span<const PyObject* const> streams) {
    return type_of(object).end == End::finalizer && !contains(streams, object) &&
           !is_idle_generator(object);
}

/// A look at which objects one refers to, that reads none of them.
struct Glance {
    const Addresses* sought = nullptr;
    std::uint64_t hash = 0;
    bool may_have_found = false;  ///< one of those that are sought

    explicit Glance(PyObject* object, const Type& type, const Addresses* sought = nullptr)
        : sought(sought) {
        type.traverse(object, take_in, this);
    }

    static int take_in(PyObject* referent, void* argument) {
        auto& self = *static_cast<Glance*>(argument);
        self.hash = (self.hash ^ reinterpret_cast<std::uintptr_t>(referent)) * 0x9e3779b97f4a7c15;
        self.hash ^= self.hash >> 29;
        self.may_have_found |= self.sought && self.sought->may_contain(referent);
        return 0;
    }
};

/// In the template: notes what is frozen.
class Census {
  public:
    void take(long count) {
        image.types.forget();
        image.has_finalizers = false;
        image.objects.clear();
        image.objects.reserve(static_cast<std::size_t>(count));
        // As a rule they refer to twice as many, each from several places.
        image.members.reset(image.objects.capacity() * 2);
        for (std::size_t i = 0; i < kStreamNames.size(); ++i)
            image.streams[i] = PySys_GetObject(kStreamNames[i]);
        streams_ = parts_of_streams();
        for_each_object(*image.frozen, [this](PyObject* object) {
            image.objects.push_back({object, Glance(object, type_of(object)).hash});
            image.has_finalizers |= has_finalizer(object, streams_);
            return type_of(object).traverse(object, note, this);
        });
        while (!to_visit_.empty()) {
            PyObject* object = to_visit_.back();
            to_visit_.pop_back();
            type_of(object).traverse(object, note, this);
        }
    }

  private:
    static int note(PyObject* object, void* argument) {
        auto& self = *static_cast<Census*>(argument);
        image.members.add(object);
        const End end = type_of(object).end;
        if (end == End::nothing || PyObject_GC_IsTracked(object)) return 0;
        image.has_finalizers |= has_finalizer(object, self.streams_);
        if (is_untracked_container(object)) {
            if (self.reached_.insert(object).second) self.to_visit_.push_back(object);
        } else if (end == End::unknown && image.unknown.insert(object).second) {
            keep_until_finalized(object);
        }
        return 0;
    }

    std::vector<const PyObject*> streams_;
    std::unordered_set<const PyObject*> reached_;
    std::vector<PyObject*> to_visit_;  // no recursion: tuples may be nested at any depth
};

/// A function of the module gc.
Reference call_collector(const char* function, const char* format = nullptr, int argument = 0) {
    const Reference module(PyImport_ImportModule("gc"));
    return Reference(module ? PyObject_CallMethod(module.get(), function, format, argument)
                            : nullptr);
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
    if (!call_collector("collect", "i", 1)) return false;
    PyObject* first = PyList_New(0);  // stays
    if (!first) return false;
    const CollectorHead* head = reinterpret_cast<const CollectorHead*>(first) - 1;
    const CollectorHead* youngest = head_in(head->previous);
    const bool is_alone = head_in(head->next) == youngest && count_ring(youngest) == 1;
    if (!call_collector("freeze")) return false;
    // Of the frozen it is the first again.
    const CollectorHead* frozen = head_in(head->previous);
    const auto* collected = reinterpret_cast<const Generation*>(youngest);
    const auto distance = reinterpret_cast<std::uintptr_t>(frozen) -
                          reinterpret_cast<std::uintptr_t>(collected + kGenerations);
    if (!is_alone || distance < sizeof(void*) || distance >= 2 * sizeof(void*)) return true;
    const CollectorHead* pointer;
    std::memcpy(&pointer, reinterpret_cast<const std::byte*>(frozen) - sizeof pointer,
                sizeof pointer);
    if (pointer != youngest) return true;
    for (std::size_t i = 0; i < kGenerations; ++i)
        if (count_ring(&collected[i].ring) < 0) return true;
    const Reference count = call_collector("get_freeze_count");
    if (count && PyLong_AsLong(count.get()) == count_ring(frozen)) {
        image.collected = collected;
        image.frozen = frozen;
    }
    return bool(count);
}

/// The collector leaves out dictionaries that hold nothing that it would track, as empty ones: what
/// is put into one later would not show in what refers to it. So these are frozen as well.
bool freeze_untracked_dictionaries() {
    const auto track = [](PyObject* object, void*) {
        if (PyDict_CheckExact(object) && !PyObject_GC_IsTracked(object)) PyObject_GC_Track(object);
        return 0;
    };
    for_each_object(*image.frozen, [&](PyObject* object) {
        return type_of(object).traverse(object, track, nullptr);
    });
    return bool(call_collector("freeze"));
}

bool can_read_generations() {
    const long version = PyLong_AsLong(PySys_GetObject("hexversion"));
    return version >= kFirstVersion && version < kVersionBeyond;
}

}  // namespace

void keep_until_finalized(PyObject* object) {
    Py_INCREF(object);
    kept.push_back(object);
}

void let_go() {
    for (PyObject* object : std::exchange(kept, {})) Py_DECREF(object);
}

bool freeze(PyObject* types, PyObject* of_python, PyObject* idle_generators) {
    keep_until_finalized(idle_generators);
    image.idle_generators = idle_generators;
    image.types.know(types, of_python);
    const Reference code(Py_CompileString("0", "", Py_eval_input));
    if (!code) return false;
    image.code_type = Py_TYPE(code.get());
    const bool is_layer = image.frozen != nullptr;
    if (is_layer || !can_read_generations()) {
        if (!call_collector("freeze")) return false;
    } else if (!freeze_and_find_generations()) {
        return false;
    }
    return !image.frozen || freeze_untracked_dictionaries();
}

void take_census() try {
    if (image.frozen) Census().take(count_ring(image.frozen));
} catch (const std::bad_alloc&) {
    image.frozen = nullptr;
}

bool can_search_image() {
    return image.frozen != nullptr;
}

bool is_unfrozen() {
    return head_in(image.frozen->next) == image.frozen;
}

PyObject* stream_of_image(std::size_t descriptor) {
    return image.streams[descriptor];
}

ImageSearch::ImageSearch() : streams_(parts_of_streams()) {
    for (std::size_t i = 0; i < kGenerations; ++i)
        for_each_object(image.collected[i].ring, [this](PyObject* object) {
            own_.insert(object);
            return is_too_large();
        });
}

bool ImageSearch::is_too_large() const {
    return own_.size() > image.objects.size();
}

bool ImageSearch::finds_end() {
    if (image.has_finalizers || image.types.have_new_finalizer() || has_begun_generator() ||
        std::any_of(own_.begin(), own_.end(),
                    [this](PyObject* object) { return runs_code_at_end(object); }) ||
        finds_end_in_image())
        return true;
    while (!to_visit_.empty()) {
        PyObject* object = to_visit_.back();
        to_visit_.pop_back();
        if (type_of(object).traverse(object, visit, this)) return true;
    }
    return false;
}

/// Of the program's own.
bool ImageSearch::runs_code_at_end(PyObject* object) const {
    const auto is_own_callback = [](PyObject* referent, void* self) {
        return int{static_cast<const ImageSearch*>(self)->is_own(referent)};
    };
    const Type& type = type_of(object);
    if (type.end == End::finalizer) return !contains(streams_, object);
    return PyWeakref_Check(object) &&
           type.traverse(object, is_own_callback, const_cast<ImageSearch*>(this));
}

/// Looks closely only at what does not refer to the same objects as it did in the template. Where
/// one of these has been freed, another may have its address, and its place: so far as they are of
/// the collector's these are looked for. That others, which end by themselves, take just the place
/// of something that was freed is left to chance.
bool ImageSearch::finds_end_in_image() {
    Addresses reused;
    bool has_reused = false;
    reused.reset(kMostReused);
    for (const PyObject* object : own_)
        if (image.members.may_contain(object)) reused.add(object), has_reused = true;
    const PyObject* modules = PyImport_GetModuleDict();  // does not count: it is emptied first
    auto known = image.objects.begin();
    return for_each_object(*image.frozen, [&](PyObject* object) {
        const Type& type = type_of(object);
        // As its class may be another one.
        if (type.end == End::finalizer && has_finalizer(object, streams_)) return 1;
        while (known != image.objects.end() && known->object != object) ++known;
        if (image.objects.end() - known > kAhead) __builtin_prefetch(known[kAhead].object);
        const Glance glance(object, type, has_reused ? &reused : nullptr);
        const bool is_same = known != image.objects.end() && known->referents == glance.hash;
        if ((is_same && !glance.may_have_found) || object == modules) return 0;
        return type_of(object).traverse(object, visit, this);
    });
}

/// Of what hangs on the image: 1 if it ends by itself.
int ImageSearch::visit(PyObject* object, void* argument) {
    auto& self = *static_cast<ImageSearch*>(argument);
    const End end = type_of(object).end;
    if (Py_TYPE(object) == image.code_type) {
        // Where code has been put together by hand, its constants may be anything.
        const Reference constants(PyObject_GetAttrString(object, "co_consts"));
        if (constants && self.reached_.insert(constants.get()).second)
            self.to_visit_.push_back(constants.get());
        return 0;
    }
    if (end == End::nothing) return 0;
    const bool is_own = self.is_own(object);
    if (end == End::unknown && is_own) return 1;
    if (end == End::unknown || end == End::finalizer)
        // The collector's are of the image, or have been dealt with.
        return !PyObject_GC_IsTracked(object) && !image.unknown.contains(object);
    if ((is_own || is_untracked_container(object)) && self.reached_.insert(object).second)
        self.to_visit_.push_back(object);
    return 0;
}

}  // namespace warmfork::python
