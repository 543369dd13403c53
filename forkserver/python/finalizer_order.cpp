// When would CPython call the finalizers of what hangs on the image? As a rule it does so in the
// collection after it has taken the modules out, and then so can we; the rest is left to it.
#define PY_SSIZE_T_CLEAN
#define Py_LIMITED_API 0x03090000
#include <algorithm>
#include <unordered_set>
#include <vector>

#include "python/frozen_image.hpp"
#include "python/image_data.hpp"

namespace warmfork::python {

/// Are the image's modules in sys.modules? One of the program's may have the address of one that is
/// gone.
bool ImageSearch::has_all_modules() const {
    std::unordered_set<const PyObject*> found;
    PyObject *name, *module;
    for (Py_ssize_t position = 0; PyDict_Next(PyImport_GetModuleDict(), &position, &name, &module);)
        if (!is_own(module)) found.insert(module);
    return std::all_of(image.modules.begin(), image.modules.end(),
                       [&](const PyObject* known) { return found.contains(known); });
}

/// Is what hangs on the image, and has a finalizer, collected when the modules are gone, and not
/// before or after? This is asked after the image has been looked through.
bool ImageSearch::is_collected_with_modules() const {
    return has_all_modules() && !held_may_have_end_ && !holds_finalizer() && !is_held_elsewhere() &&
           !has_callback();
}

/// Does something that has a finalizer outlive the collection, as something does on which it hangs?
bool ImageSearch::holds_finalizer() const {
    std::unordered_set<const PyObject*> sought(finalizers_of_image_.begin(),
                                               finalizers_of_image_.end());
    sought.insert(is_holder_.begin(), is_holder_.end());
    struct Closure {
        const ImageSearch& search;
        std::unordered_set<const PyObject*> known;
        std::vector<PyObject*> to_visit;

        static int add(PyObject* object, void* argument) {
            auto& self = *static_cast<Closure*>(argument);
            if (PyObject_GC_IsTracked(object) && object != PyImport_GetModuleDict() &&
                !self.search.is_own(object) && !image.holds(object) &&
                self.known.insert(object).second)
                self.to_visit.push_back(object);
            return 0;
        }
    } closure{*this, {}, {}};
    for (PyObject* object : held_) Closure::add(object, &closure);
    while (!closure.to_visit.empty()) {
        PyObject* object = closure.to_visit.back();
        closure.to_visit.pop_back();
        if (sought.contains(object)) return true;
        type_of(object).traverse(object, Closure::add, &closure);
    }
    return false;
}

/// Is there a callback of a weak reference? The collector calls these before finalizers.
bool ImageSearch::has_callback() const {
    return any_own(
        [this](PyObject* object) { return int{PyWeakref_Check(object) && has_end(object)}; });
}

std::vector<PyObject*> ImageSearch::finalizers_of_program() const {
    std::vector<PyObject*> found;
    const auto note = [&](PyObject* object) {
        if (has_finalizer(object, streams_) && !PyObject_GC_IsFinalized(object))
            found.push_back(object);
        return 0;
    };
    // The younger generations are put behind the oldest, one after the other.
    for (const std::size_t generation : {kGenerations - 1, std::size_t{0}, std::size_t{1}})
        for_each_object(image.collected[generation].ring, note);
    return found;
}

}  // namespace warmfork::python
