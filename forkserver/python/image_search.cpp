#define PY_SSIZE_T_CLEAN
#define Py_LIMITED_API 0x03090000
#include "python/frozen_image.hpp"

#include <algorithm>
#include <cstring>
#include <tuple>
#include <utility>

#include "python/image_data.hpp"

namespace warmfork::python {
namespace {

// Objects lie all over the memory, and the search mostly waits for that.
constexpr std::size_t kPrefetched = 16;

// Their callbacks of weak references only forget them.
constexpr std::array kQuietModules = {"weakref", "_weakrefset", "logging"};

constexpr std::array kCodecModules = {"_io", "codecs", "encodings.utf_8", "encodings.ascii",
                                      "encodings.latin_1"};

// What finalize_modules of CPython takes out of sys and builtins before all else, in its order.
constexpr std::array kTakenFirst = {"_", "path", "argv", "ps1", "ps2", "last_exc", "last_type",
                                    "last_value", "last_traceback", "path_hooks",
                                    "path_importer_cache", "meta_path", "__interactivehook__",
                                    // CPython puts those from its start in their place.
                                    "stdin", "stdout", "stderr"};

CollectorHead& head_of(PyObject* object) {
    return reinterpret_cast<CollectorHead*>(object)[-1];
}

template <std::size_t count>
bool is_of_module(PyObject* object, const std::array<const char*, count>& names) {
    const Reference module = plain_attribute(object, "__module__");
    return module && PyUnicode_Check(module.get()) &&
           std::any_of(names.begin(), names.end(), [&](const char* name) {
               return PyUnicode_CompareWithASCIIString(module.get(), name) == 0;
           });
}

/// Has the weak reference a callback that somebody could notice? Those that the standard library
/// makes for its own use only forget it.
bool tells_somebody(PyObject* reference) {
    const Reference callback = plain_attribute(reference, "__callback__");
    if (!callback || callback.get() == Py_None) return !callback;
    if (PyCFunction_Check(callback.get()))
        return !image.quiet_functions.contains(function_of(callback.get()));
    return !is_of_module(callback.get(), kQuietModules);
}

/// Would a call of it run code of the program? Descriptors would not, which types that C code has
/// laid out keep for ever.
bool is_function(PyObject* object) {
    return PyCallable_Check(object) && !PyType_Check(object) && !PyCFunction_Check(object) &&
           !PyWeakref_Check(object) && !image.descriptor_types.contains(Py_TYPE(object));
}

/// Is it a list of functions, such as the interpreter's one of fork handlers?
bool lists_functions(PyObject* object) {
    return PyList_CheckExact(object) && PyList_Size(object) > 0 &&
           is_function(PyList_GetItem(object, 0));
}

/// Does the capsule only tell where something lies, or has a module of the interpreter's own filled
/// it in, which frees that at its end, and no more?
bool is_quiet_capsule(PyObject* object) {
    if (!PyCapsule_CheckExact(object)) return false;
    const char* name = PyCapsule_GetName(object);  // begins with that of its module
    const bool has_destructor = PyCapsule_GetDestructor(object) != nullptr;
    PyErr_Clear();  // of one without a pointer
    if (!has_destructor) return true;
    const char* dot = name ? std::strchr(name, '.') : nullptr;
    return dot &&
           (image.types.is_quiet_name(Reference(PyUnicode_FromString(name))) ||
            image.types.is_quiet_name(Reference(PyUnicode_FromStringAndSize(name, dot - name))));
}

}  // namespace

bool is_taken_first(PyObject* name) {
    return PyUnicode_Check(name) &&
           std::any_of(kTakenFirst.begin(), kTakenFirst.end(), [&](const char* taken) {
               return PyUnicode_CompareWithASCIIString(name, taken) == 0;
           });
}

bool is_file(PyObject* object) {
    // A text stream can be over anything, and be encoded by anything.
    const auto is_foreign = [](PyObject* part, void*) {
        const bool is_of_python = PyType_GetFlags(Py_TYPE(part)) & Py_TPFLAGS_HEAPTYPE;
        return int{is_of_python && !image.file_types.contains(Py_TYPE(part)) &&
                   !is_of_module(part, kCodecModules)};
    };
    return object && image.file_types.contains(Py_TYPE(object)) &&
           type_of(object).traverse(object, is_foreign, nullptr) == 0;
}

ImageSearch::Marks::Marks() {
    image.types.drop_own();  // since the last search some may have been freed
    any_own([](PyObject* object) { return head_of(object).previous |= kCollecting, 0; });
}

ImageSearch::Marks::~Marks() {
    any_own([](PyObject* object) { return head_of(object).previous &= ~kCollecting, 0; });
}

ImageSearch::ImageSearch() : streams_(parts_of_streams()) {
    any_own([this](PyObject* object) {
        if (is_function(object) || lists_functions(object)) known_references_.try_emplace(object);
        return 0;
    });
    for (const PyObject* object : image.kept)
        if (known_references_.contains(object)) {
            reached_.emplace(object, Reached{nullptr, false});
            count(object);
        }
}

bool ImageSearch::is_own(PyObject* object) const {
    return PyObject_GC_IsTracked(object) && head_of(object).previous & kCollecting;
}

Ends ImageSearch::of_image(bool is_last) {
    ends_of_image_count_ = is_last;
    if (image.has_untracked_finalizers || image.types.have_new_finalizer() || finds_end_in_image())
        return Ends::of_any_kind;
    return found_ < Ends::of_finalizers || is_collected_with_modules() ? found_ : Ends::of_any_kind;
}

Ends ImageSearch::of_program() {
    Ends found = Ends::none;
    most_ = Ends::of_files;
    const bool finds_other = any_own([&](PyObject* object) {
        if (has_end(object)) {
            if (!is_file(object)) return 1;
            found = Ends::of_files;
        }
        return type_of(object).traverse(object, visit_from_own, this);
    });
    if (finds_other || finds_end_below() || is_known_elsewhere(is_function))
        return Ends::of_any_kind;
    return found;
}

bool ImageSearch::is_held_elsewhere() const {
    const auto is_any = [](PyObject*) { return true; };
    return is_known_elsewhere(is_any) ||
           any_own([](PyObject* object) { return int{Py_TYPE(object) == image.context_type}; });
}

/// Is a function, or a list of them, that is asked about known to somebody whom the collector does
/// not know?
bool ImageSearch::is_known_elsewhere(bool (*is_asked_about)(PyObject*)) const {
    auto references = known_references_;
    const auto count = [](PyObject* object, void* argument) {
        auto& counted = *static_cast<decltype(references)*>(argument);
        if (const auto found = counted.find(object); found != counted.end()) ++found->second;
        return 0;
    };
    any_own([&](PyObject* object) { return type_of(object).traverse(object, count, &references); });
    return std::any_of(references.begin(), references.end(), [&](const auto& entry) {
        PyObject* object = const_cast<PyObject*>(entry.first);
        return Py_REFCNT(object) != entry.second && is_asked_about(object);
    });
}

bool ImageSearch::find_holders() {
    goes_on_ = true;
    return !finds_end_in_image();
}

bool ImageSearch::finds_remaining_end() const {
    return any_own(
        [this](PyObject* object) { return has_end(object) && !PyObject_GC_IsFinalized(object); });
}

bool ImageSearch::finds_remaining_function() const {
    return std::any_of(known_references_.begin(), known_references_.end(),
                       [this](const auto& entry) {
                           return is_function(const_cast<PyObject*>(entry.first)) &&
                                  !reached_.contains(entry.first);
                       });
}

bool ImageSearch::clear(PyObject* holder) {
    const auto clear = reinterpret_cast<inquiry>(PyType_GetSlot(Py_TYPE(holder), Py_tp_clear));
    if (!clear || holder == image.of_system || holder == image.of_builtins) return false;
    clear(holder);
    image.types.clear();  // some may have been freed
    return true;
}

/// Has an object of the program, which the collector tracks, an end?
bool ImageSearch::has_end(PyObject* object) const {
    const auto [end, has_other_end, traverse] = type_of(object);
    if (end == End::unknown && is_quiet_capsule(object)) return false;
    if (end == End::finalizer && !has_other_end && PyObject_GC_IsFinalized(object)) return false;
    if (end == End::finalizer || end == End::unknown) return !contains(streams_, object);
    return PyWeakref_Check(object) && tells_somebody(object);
}

/// Notes which addresses of the image objects of the program have: where one of the image has been
/// freed, another may have its place.
void ImageSearch::note_reused() {
    image.reused.clear();
    has_reused_ = false;
    any_own([this](PyObject* object) {
        if (image.members.may_contain(object)) image.reused.add(object), has_reused_ = true;
        return 0;
    });
}

/// Notes an object of the image whose type has a finalizer. Returns false where it is of another
/// kind than those that can be called by themselves.
bool ImageSearch::notes_finalizer(PyObject* object) {
    if (!has_finalizer(object, streams_) || PyObject_GC_IsFinalized(object)) return true;
    if (!PyType_GetSlot(Py_TYPE(object), Py_tp_finalize)) return false;
    finalizers_of_image_.push_back(object);
    return true;
}

/// Looks whether something with an end hangs on this object, and notes a finalizer of its own.
/// `known` is what is noted of it, or null where it is none of the image's. Looks closely only
/// where it does not refer to the same as it did in the template. Objects that have taken the place
/// of something that was freed are looked for as far as the collector tracks them. That others,
/// which end by themselves, take just such a place is left to chance.
bool ImageSearch::finds_end_from(PyObject* object, const Frozen* known) {
    const Type& type = type_of(object);
    if (type.end == End::finalizer && ends_of_image_count_ && !notes_finalizer(object)) return true;
    const ReferentDigest digest(object, type, has_reused_ ? &image.reused : nullptr);
    const bool is_same = known && known->referents == digest.hash;
    const PyObject* modules = PyImport_GetModuleDict();  // does not count: it is emptied first
    if ((is_same && !digest.may_have_found) || object == modules) return false;
    holder_ = object;
    const bool loses_first = object == image.of_system || object == image.of_builtins;
    is_held_ = loses_first || image.holds(object);
    const int is_found = loses_first
                             ? visit_values(object)
                             : type.traverse(object, is_same ? visit_own : visit_from_image, this);
    return is_found || finds_end_below();
}

bool ImageSearch::finds_end_in_image() {
    note_reused();
    return image.pages.choose() ? finds_end_in_chosen() : finds_end_in_all();
}

bool ImageSearch::finds_end_in_all() {
    auto known = image.objects.begin();
    return for_each_object(*image.frozen, [&](PyObject* object) {
        while (known != image.objects.end() && known->object != object) ++known;
        if (image.objects.end() - known > std::ptrdiff_t{kPrefetched})
            __builtin_prefetch(known[kPrefetched].object);
        const bool is_known = known != image.objects.end();
        return int{finds_end_from(object, is_known ? &*known : nullptr)};
    });
}

/// Prefetches the first chosen object from there on, and the table of one that is on its way
/// already.
void prefetch_from(std::size_t index, std::size_t next) {
    index = image.pages.next_chosen(index);
    if (index < image.objects.size()) __builtin_prefetch(image.objects[index].object);
    next = image.pages.next_chosen(next);
    if (next >= image.objects.size() || image.pages.is_head_gone(next)) return;
    const PyObject* object = image.objects[next].object;
    if (Py_TYPE(object) == &PyDict_Type)  // or it has been one
        __builtin_prefetch(*reinterpret_cast<void* const*>(
            reinterpret_cast<const std::byte*>(object) + kDictionaryTable));
}

CollectorHead& head_at(std::size_t index) {
    return head_of(const_cast<PyObject*>(image.objects[index].object));
}

/// Does it still lie between the same two? One that has been freed does not; but where its
/// neighbours have been freed as well, the program's own may have taken their places in the same
/// order.
bool is_in_place(std::size_t index) {
    if (image.pages.is_head_gone(index)) return false;
    const CollectorHead& head = head_at(index);
    if (head.previous & kCollecting) return false;  // marked as the program's own
    const std::size_t next = index + 1;
    return head_in(head.previous) == (index > 0 ? &head_at(index - 1) : image.frozen) &&
           head_in(head.next) == (next < image.objects.size() ? &head_at(next) : image.frozen);
}

/// Looks only at those that the child may have written to.
bool ImageSearch::finds_end_in_chosen() {
    const ImagePages& pages = image.pages;
    for (std::size_t next = pages.next_chosen(0); next < pages.size();) {
        prefetch_from(next + kPrefetched, next + kPrefetched / 2);
        if (pages.is_head_written(next) && !is_in_place(next)) {
            if (finds_end_around(next)) return true;
        } else if (finds_end_from(const_cast<PyObject*>(image.objects[next].object),
                                  &image.objects[next])) {
            return true;
        }
        next = pages.next_chosen(next + 1);
    }
    return false;
}

/// Goes along the ring, as `next` or a neighbour of it may be gone: from one in front of it that is
/// still in there to one behind it.
bool ImageSearch::finds_end_around(std::size_t& next) {
    const ImagePages& pages = image.pages;
    std::size_t begin = next;
    while (begin > 0 && pages.is_head_written(begin - 1) && !is_in_place(begin - 1)) --begin;
    std::size_t end = next + 1;
    while (end < pages.size() && pages.is_head_written(end) && !is_in_place(end)) ++end;
    const CollectorHead* const behind = end < pages.size() ? &head_at(end) : image.frozen;
    const CollectorHead* head = begin > 0 ? &head_at(begin - 1) : image.frozen;
    for (head = head_in(head->next); head != behind; head = head_in(head->next), ++begin) {
        const void* const object = head + 1;
        while (begin < end && image.objects[begin].object != object) ++begin;
        // Nobody knows what is there: CPython is to find all ends.
        if (begin == end) return true;
        if (begin >= next && pages.is_chosen(begin) &&
            finds_end_from(static_cast<PyObject*>(const_cast<void*>(object)),
                           &image.objects[begin]))
            return true;
    }
    next = end - 1;
    return false;
}

bool ImageSearch::finds_end_below() {
    while (!to_visit_.empty()) {
        PyObject* object;
        std::tie(object, is_held_) = to_visit_.back();
        to_visit_.pop_back();
        if (type_of(object).traverse(object, visit, this)) return true;
    }
    return false;
}

/// Visits what is in the dictionary of sys or builtins until the modules are taken apart.
int ImageSearch::visit_values(PyObject* dictionary) {
    PyObject *name, *value;
    for (Py_ssize_t position = 0; PyDict_Next(dictionary, &position, &name, &value);)
        if (!is_taken_first(name) && (visit(name, this) || visit_from_image(value, this))) return 1;
    return 0;
}

void ImageSearch::count(const PyObject* object) {
    if (const auto found = known_references_.find(object); found != known_references_.end())
        ++found->second;
}

/// Visits a referent of an object that refers to the same as it did, though what lies there may not
/// be the same.
int ImageSearch::visit_own(PyObject* object, void* self) {
    return static_cast<ImageSearch*>(self)->is_own(object) ? visit_from_image(object, self) : 0;
}

int ImageSearch::visit_from_image(PyObject* object, void* self) {
    static_cast<ImageSearch*>(self)->count(object);
    return visit(object, self);
}

int ImageSearch::visit_from_own(PyObject* object, void* argument) {
    auto& self = *static_cast<ImageSearch*>(argument);
    // Others of its own are visited by themselves.
    return PyObject_GC_IsTracked(object) ? 0 : self.visit_untracked(object);
}

/// Returns the kind of end of an object of the program that has one.
Ends ImageSearch::kind_of_end(PyObject* object) const {
    if (is_file(object)) return Ends::of_files;
    if (type_of(object).end == End::unknown) return Ends::of_code_in_c;
    const bool is_called = PyType_GetSlot(Py_TYPE(object), Py_tp_finalize) != nullptr;
    return is_called && !PyWeakref_Check(object) ? Ends::of_finalizers : Ends::of_any_kind;
}

/// Notes that what the search has found ends by itself. Returns 1 if it need not go on.
int ImageSearch::find(Ends kind) {
    found_ = std::max(found_, kind);
    held_may_have_end_ |= is_held_;
    if (!goes_on_ && (kind > most_ || (found_ == Ends::of_finalizers && held_may_have_end_)))
        return 1;
    note_holder();
    return 0;
}

void ImageSearch::note_holder() {
    if (is_holder_.insert(holder_).second) holders_.push_back(holder_);
}

/// Notes that the image leads to an own object, or to one that is not tracked. Where another object
/// of the image has led to it, and to some end, this one may as well.
void ImageSearch::reach(PyObject* object) {
    const auto [known, is_new] = reached_.emplace(object, Reached{holder_, is_held_});
    if (is_new) {
        to_visit_.emplace_back(object, is_held_);
        return;
    }
    held_may_have_end_ |= is_held_ && !known->second.is_held;
    if (is_holder_.contains(known->second.holder)) note_holder();
}

int ImageSearch::visit(PyObject* object, void* argument) {
    auto& self = *static_cast<ImageSearch*>(argument);
    if (!PyObject_GC_IsTracked(object)) return self.visit_untracked(object);
    if (!self.is_own(object)) {
        if (self.is_held_ && object != PyImport_GetModuleDict()) self.held_.push_back(object);
        return 0;
    }
    if (self.has_end(object) && self.find(self.kind_of_end(object))) return 1;
    self.reach(object);
    return 0;
}

/// Visits something that the collector does not know. It is the program's if it is not known as the
/// image's.
int ImageSearch::visit_untracked(PyObject* object) {
    if (const auto found = image.visited.find(Py_TYPE(object)); found != image.visited.end()) {
        // The object holds what it returns, and the collector does not know that.
        const Reference value(PyObject_GetAttr(object, found->second));
        PyErr_Clear();
        const bool was_held = std::exchange(is_held_, true);
        const int result = value ? visit(value.get(), this) : 0;
        is_held_ = was_held;
        return result;
    }
    // A type that C code has laid out is never freed.
    if (PyType_Check(object)) return 0;
    const End end = type_of(object).end;
    if ((end == End::unknown && !is_quiet_capsule(object)) || end == End::finalizer)
        return !image.unknown.contains(object) &&
               find(end == End::unknown ? Ends::of_code_in_c : Ends::of_any_kind);
    // Others than the program's refer to the same empty tuple, and nothing can be put in there.
    if (is_untracked_container(object) && PyObject_Size(object) > 0) reach(object);
    return 0;
}

}  // namespace warmfork::python
