#define PY_SSIZE_T_CLEAN
#define Py_LIMITED_API 0x03090000
#include "python/frozen_image.hpp"

#include <algorithm>
#include <cstring>
#include <new>
#include <utility>

#include "python/image_data.hpp"

namespace warmfork::python {

Image image;

bool is_untracked_container(PyObject* object) {
    return (PyDict_CheckExact(object) || PyTuple_CheckExact(object)) &&
           !PyObject_GC_IsTracked(object);
}

namespace {

// So many addresses of the image are expected to be those of a program's objects. As a rule there
// are few; where there are more, more is looked at than need be.
constexpr std::size_t kMostReused = 1024;

/// What a text stream is made of. A part is null where it is not there, as the stream is
/// unbuffered, or closed.
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

/// Would it do nothing at its end, as it has not begun, or is through? Before 3.11 it does not say
/// so.
bool is_idle_generator(PyObject* object) {
    if (Py_TYPE(object) != image.generator_type) return false;
    const Reference suspended(PyObject_GetAttrString(object, "gi_suspended"));
    PyErr_Clear();
    return suspended.get() == Py_False;
}

}  // namespace

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

bool has_finalizer(PyObject* object, std::span<const PyObject* const> streams) {
    return type_of(object).end == End::finalizer && !contains(streams, object) &&
           !is_idle_generator(object);
}

namespace {

/// Notes, in the template, what is frozen.
class Census {
  public:
    void take(long count) {
        image.types.clear();
        image.has_untracked_finalizers = false;
        image.pages.clear();
        image.objects.clear();
        image.objects.reserve(static_cast<std::size_t>(count));
        // As a rule they refer to twice as many, each from several places.
        image.members.reset(image.objects.capacity() * 2);
        image.reused.reset(kMostReused);
        image.modules.clear();
        PyObject *name, *module;
        for (Py_ssize_t position = 0;
             PyDict_Next(PyImport_GetModuleDict(), &position, &name, &module);)
            if (PyUnicode_CompareWithASCIIString(name, "__main__") != 0)
                image.modules.push_back(module);
        for (std::size_t i = 0; i < kStreamNames.size(); ++i)
            image.streams[i] = PySys_GetObject(kStreamNames[i]);
        streams_ = parts_of_streams();
        for_each_object(*image.frozen, [this](PyObject* object) {
            image.objects.push_back({object, ReferentDigest(object, type_of(object)).hash});
            referents_.clear();
            type_of(object).traverse(object, note_of_image, this);
            add_to_pages(object);
            return 0;
        });
        image.pages.close();
        while (!to_visit_.empty()) {
            PyObject* object = to_visit_.back();
            to_visit_.pop_back();
            type_of(object).traverse(object, note, this);
        }
    }

  private:
    /// Adds an object to the pages. One that may come to an end of its own does so without being
    /// written to.
    void add_to_pages(PyObject* object) {
        const bool has_end = type_of(object).end == End::finalizer;
        image.pages.add(reinterpret_cast<CollectorHead*>(object) - 1,
                        has_end ? nullptr : image.layouts.parts_of(object, referents_));
    }

    static int note_of_image(PyObject* object, void* argument) {
        static_cast<Census*>(argument)->referents_.push_back(object);
        return note(object, argument);
    }

    static int note(PyObject* object, void* argument) {
        auto& self = *static_cast<Census*>(argument);
        image.members.add(object);
        const End end = type_of(object).end;
        if (end == End::nothing || PyObject_GC_IsTracked(object)) return 0;
        image.has_untracked_finalizers |= end == End::finalizer;
        if (is_untracked_container(object)) {
            if (self.reached_.insert(object).second) self.to_visit_.push_back(object);
        } else if (end == End::unknown && image.unknown.insert(object).second) {
            keep_until_finalized(object);
        }
        return 0;
    }

    std::vector<const PyObject*> streams_;
    std::vector<const PyObject*> referents_;  // of one object
    std::unordered_set<const PyObject*> reached_;
    std::vector<PyObject*> to_visit_;  // instead of recursion: tuples may be nested at any depth
};

/// Calls a function of the module gc.
Reference call_collector(const char* function, const char* format = nullptr, int argument = 0) {
    const Reference module(PyImport_ImportModule("gc"));
    return Reference(module ? PyObject_CallMethod(module.get(), function, format, argument)
                            : nullptr);
}

/// Returns how many are in the ring, or -1 where it is none.
long count_ring(const CollectorHead* ring) {
    long count = 0;
    for (const CollectorHead* head = ring;; ++count) {
        const CollectorHead* next = head_in(head->next);
        if (head_in(next->previous) != head) return -1;
        if (next == ring) return count;
        head = next;
    }
}

/// Is this where the frozen are: behind the generations that are collected, at once or, in some
/// versions, with a pointer to the youngest of these between?
bool lies_behind(const CollectorHead* frozen, const Generation* collected) {
    const auto distance = reinterpret_cast<std::uintptr_t>(frozen) -
                          reinterpret_cast<std::uintptr_t>(collected + kGenerations);
    if (distance == 0) return true;
    if (distance < sizeof(void*) || distance >= 2 * sizeof(void*)) return false;
    const CollectorHead* pointer;
    std::memcpy(&pointer, reinterpret_cast<const std::byte*>(frozen) - sizeof(void*),
                sizeof(void*));
    return pointer == &collected->ring;
}

/// Calls gc.freeze() for the first time. Returns false with an exception set.
bool freeze_and_find_generations() {
    // After this all objects are in the oldest generation.
    if (!call_collector("collect", "i", 1)) return false;
    PyObject* first = PyList_New(0);  // stays
    if (!first) return false;
    const CollectorHead* head = reinterpret_cast<const CollectorHead*>(first) - 1;
    const CollectorHead* youngest = head_in(head->previous);
    const bool is_alone = head_in(head->next) == youngest && count_ring(youngest) == 1;
    if (!call_collector("freeze")) return false;
    const auto* collected = reinterpret_cast<const Generation*>(youngest);
    const Reference count = call_collector("get_freeze_count");
    if (!count) return false;
    // Of the frozen it is the first again, but for those that never end, which 3.12 keeps there.
    for (long left = PyLong_AsLong(count.get()); left > 0 && !lies_behind(head, collected); --left)
        head = head_in(head->previous);
    const CollectorHead* frozen = head;
    if (!is_alone || !lies_behind(frozen, collected)) return true;
    for (std::size_t i = 0; i < kGenerations; ++i)
        if (count_ring(&collected[i].ring) < 0) return true;
    if (PyLong_AsLong(count.get()) != count_ring(frozen)) return true;
    image.collected = collected;
    image.frozen = frozen;
    return true;
}

/// Freezes also dictionaries that the collector leaves out as they hold nothing that it would
/// track, such as empty ones: what is put into one later would not show in what refers to it.
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

/// Can slots of static types be read? 3.9 does not tell them.
bool can_read_slots() {
    const Reference list(PyList_New(0));
    const bool can = list && PyType_GetSlot(Py_TYPE(list.get()), Py_tp_traverse);
    PyErr_Clear();
    return can;
}

}  // namespace

void keep_until_finalized(PyObject* object) {
    Py_INCREF(object);
    image.kept.push_back(object);
}

void note_own_namespace(PyObject* dictionary) {
    image.own_namespaces.insert(dictionary);
}

void let_go() {
    for (PyObject* object : std::exchange(image.kept, {})) Py_DECREF(object);
}

bool freeze(const Kinds& kinds) {
    for (Py_ssize_t i = 0; i < PyList_Size(kinds.files); ++i)
        image.file_types.insert(reinterpret_cast<PyTypeObject*>(PyList_GetItem(kinds.files, i)));
    for (Py_ssize_t i = 0; i < PyList_Size(kinds.descriptors); ++i)
        image.descriptor_types.insert(
            reinterpret_cast<PyTypeObject*>(PyList_GetItem(kinds.descriptors, i)));
    for (Py_ssize_t i = 0; i < PyList_Size(kinds.quiet_callbacks); ++i)
        if (PyObject* call = PyList_GetItem(kinds.quiet_callbacks, i); PyCFunction_Check(call))
            image.quiet_functions.insert(function_of(call));
    image.visited.clear();
    for (Py_ssize_t i = 0; i < PyList_Size(kinds.visited); ++i) {
        PyObject *type, *name;
        if (!PyArg_ParseTuple(PyList_GetItem(kinds.visited, i), "OU", &type, &name)) return false;
        keep_until_finalized(name);
        image.visited.emplace(reinterpret_cast<PyTypeObject*>(type), name);
    }
    image.of_system = PyModule_GetDict(PyImport_AddModule("sys"));
    image.of_builtins = PyModule_GetDict(PyImport_AddModule("builtins"));
    image.generator_type = reinterpret_cast<PyTypeObject*>(kinds.generator);
    image.context_type = reinterpret_cast<PyTypeObject*>(kinds.context);
    image.types.know(kinds);
    image.layouts.know(kinds.fixed, kinds.in_one_piece, kinds.of_python);
    const bool is_layer = image.frozen != nullptr;
    if (is_layer || !can_read_slots()) {
        if (!call_collector("freeze")) return false;
    } else if (!freeze_and_find_generations()) {
        return false;
    }
    return !image.frozen || freeze_untracked_dictionaries();
}

void take_census() try {
    if (image.frozen) {
        Census().take(count_ring(image.frozen));
        find_held();
    }
    image.types.begin_own();
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

}  // namespace warmfork::python
