#define PY_SSIZE_T_CLEAN
#define Py_LIMITED_API 0x03090000
#include "frozen_image.hpp"

#include <algorithm>

#include "image_data.hpp"

namespace warmfork::python {
namespace {

// There are few as a rule. With more of them more is looked at than need be.
constexpr std::size_t kMostReused = 1024;

// Objects lie all over the memory, which is what the search waits for.
constexpr std::ptrdiff_t kAhead = 16;

/// Has the program begun one of them?
bool has_begun_generator() {
    for (Py_ssize_t i = 0; i < PyList_Size(image.idle_generators); ++i) {
        PyObject* generator = PyList_GetItem(image.idle_generators, i);  // borrowed
        const Reference suspended(PyObject_GetAttrString(generator, "gi_suspended"));
        if (suspended.get() != Py_False) return true;
    }
    return false;
}

}  // namespace

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
