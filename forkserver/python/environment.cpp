#define PY_SSIZE_T_CLEAN
#define Py_LIMITED_API 0x03090000
#include "python/environment.hpp"

#include <unistd.h>

#include <cstdlib>
#include <cstring>

#include "python/python_objects.hpp"

namespace warmfork::python {
namespace {

Reference bytes_from(const char* text) {
    return Reference(PyBytes_FromStringAndSize(text, static_cast<Py_ssize_t>(std::strlen(text))));
}

// The environment that the record has brought, as `renew_environment` found it last.
std::vector<std::string> applied_environment;

}  // namespace

Reference environment_dictionary(char** variable) {
    Reference dictionary(PyDict_New());
    for (; dictionary && *variable; ++variable) {
        const char* equals = std::strchr(*variable, '=');
        if (!equals) continue;
        Reference name(PyBytes_FromStringAndSize(*variable, equals - *variable));
        Reference value = bytes_from(equals + 1);
        if (!name || !value) return Reference(nullptr);
        if (PyDict_Contains(dictionary.get(), name.get()) == 0 &&
            PyDict_SetItem(dictionary.get(), name.get(), value.get()) < 0)
            return Reference(nullptr);
    }
    return dictionary;
}

std::vector<std::string>& renewed_environment() {
    return applied_environment;
}

bool renew_environment(PyObject* child) {
    std::vector<std::string>& applied = applied_environment;
    char** variable = environ;
    std::size_t same = 0;
    while (*variable && same < applied.size() && applied[same] == *variable) ++variable, ++same;
    if (!applied.empty() && !*variable && same == applied.size()) return true;
    applied.clear();
    for (variable = environ; *variable; ++variable) applied.emplace_back(*variable);
    Reference environment = environment_dictionary(environ);
    return environment &&
           Reference(PyObject_CallMethod(child, "set_environment", "O", environment.get()));
}

void save_environment() {
    std::size_t count = 0;
    while (environ[count]) ++count;
    auto** kept = static_cast<char**>(std::calloc(count + 1, sizeof(char*)));
    if (!kept) ::_exit(1);
    for (std::size_t i = 0; i < count; ++i) {
        kept[i] = ::strdup(environ[i]);
        if (!kept[i]) ::_exit(1);
    }
    environ = kept;
}

}  // namespace warmfork::python
