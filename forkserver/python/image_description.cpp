#define PY_SSIZE_T_CLEAN
#define Py_LIMITED_API 0x03090000
#include "python/image_description.hpp"

#include <set>
#include <string>

#include "python/python_objects.hpp"

namespace warmfork::python {
namespace {

/// Calls `add` with each of a sequence's bytes objects. Returns false with an exception set.
template <typename Add>
bool for_each_text(PyObject* sequence, Add add) {
    StringArray strings;
    if (!strings.read(sequence)) return false;
    for (const char* const* string = strings.get(); *string; ++string) add(*string);
    return true;
}

}  // namespace

bool read_facts(PyObject* tuple, ImageFacts& ret_facts) {
    PyObject *variables, *sources, *caches, *places, *shadowable;
    int reads_all;
    if (!PyArg_ParseTuple(tuple, "OpOOOO", &variables, &reads_all, &sources, &caches, &places,
                          &shadowable))
        return false;
    ret_facts.reads_all_variables = reads_all;
    const auto into = [](std::set<std::string>& set) {
        return [&set](const char* text) { set.insert(text); };
    };
    if (!for_each_text(variables, into(ret_facts.variables)) ||
        !for_each_text(sources, into(ret_facts.sources)) ||
        !for_each_text(caches, into(ret_facts.caches)) ||
        !for_each_text(shadowable, into(ret_facts.shadowable)))
        return false;
    for (Py_ssize_t i = 0; i < PySequence_Size(places); ++i) {
        Reference pair(PySequence_GetItem(places, i));
        const char* path;
        PyObject* names;
        if (!pair || !PyArg_ParseTuple(pair.get(), "yO", &path, &names) ||
            !for_each_text(names, into(ret_facts.places[path])))
            return false;
    }
    return true;
}

bool read_findings(PyObject* list, std::vector<Finding>& ret_findings) {
    for (Py_ssize_t i = 0; i < PyList_Size(list); ++i) {
        const char *name, *text;
        if (!PyArg_ParseTuple(PyList_GetItem(list, i), "yy", &name, &text)) return false;
        ret_findings.push_back({name, text});
    }
    return !PyErr_Occurred();
}

}  // namespace warmfork::python
