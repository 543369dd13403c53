// Which objects of the image outlive the collection that follows when CPython has taken the modules
// out at its end: those that somebody refers to whom the collector does not know, as the
// interpreter does to its codecs, or code in C to a module that it has imported, and what hangs on
// these.
#define PY_SSIZE_T_CLEAN
#define Py_LIMITED_API 0x03090000
#include <algorithm>
#include <unordered_map>
#include <unordered_set>
#include <vector>

#include "python/frozen_image.hpp"
#include "python/image_data.hpp"

namespace warmfork::python {
namespace {

/// Does what the collector does: counts for each object the references that come from no other.
class Roots {
  public:
    Roots() {
        references_.reserve(image.objects.size());
        for (const Frozen& known : image.objects)
            references_.emplace(known.object, Py_REFCNT(object_of(known)));
        for (const Frozen& known : image.objects)
            type_of(object_of(known)).traverse(object_of(known), take_away, this);
        for (PyObject* object : image.kept) take_away(object, this);
    }

    std::vector<const PyObject*> find_held() {
        for (const auto& [object, references] : references_)
            if (references > 0) hold(const_cast<PyObject*>(object), this);
        while (!to_visit_.empty()) {
            PyObject* object = to_visit_.back();
            to_visit_.pop_back();
            if (object == image.of_system || object == image.of_builtins)
                hold_values(object);
            else
                type_of(object).traverse(object, hold, this);
        }
        std::vector<const PyObject*> held(held_.begin(), held_.end());
        std::sort(held.begin(), held.end());
        return held;
    }

  private:
    static PyObject* object_of(const Frozen& known) { return const_cast<PyObject*>(known.object); }

    static int take_away(PyObject* object, void* argument) {
        auto& references = static_cast<Roots*>(argument)->references_;
        if (const auto found = references.find(object); found != references.end()) --found->second;
        return 0;
    }

    static int hold(PyObject* object, void* argument) {
        auto& self = *static_cast<Roots*>(argument);
        if (self.references_.contains(object) && object != PyImport_GetModuleDict() &&
            !image.own_namespaces.contains(object) && self.held_.insert(object).second)
            self.to_visit_.push_back(object);
        return 0;
    }

    void hold_values(PyObject* dictionary) {
        PyObject *name, *value;
        for (Py_ssize_t position = 0; PyDict_Next(dictionary, &position, &name, &value);)
            if (!is_taken_first(name)) hold(value, this);
    }

    std::unordered_map<const PyObject*, Py_ssize_t> references_;
    std::unordered_set<const PyObject*> held_;
    std::vector<PyObject*> to_visit_;
};

}  // namespace

void find_held() {
    image.held = Roots().find_held();
}

}  // namespace warmfork::python
