#define PY_SSIZE_T_CLEAN
#define Py_LIMITED_API 0x03090000
#include "python/original_arguments.hpp"

#include <dlfcn.h>
#include <link.h>

#include <cstdint>
#include <cstdlib>

#include "python/python_objects.hpp"

namespace warmfork::python {
namespace {

/// It is laid out as PyWideStringList, which is no part of the stable ABI, but the same since 3.8.
/// Which variable it is differs from version to version, so it is looked for by what is in it.
struct WideStrings {
    Py_ssize_t count;
    wchar_t** strings;
};

using GetArguments = void (*)(int*, wchar_t***);

WideStrings* original = nullptr;

struct Wanted {
    GetArguments get;
    WideStrings value;
    WideStrings* found = nullptr;
};

bool contains(const dl_phdr_info& library, std::uintptr_t address) {
    for (int i = 0; i < library.dlpi_phnum; ++i) {
        const ElfW(Phdr)& segment = library.dlpi_phdr[i];
        if (segment.p_type == PT_LOAD &&
            address - (library.dlpi_addr + segment.p_vaddr) < segment.p_memsz)
            return true;
    }
    return false;
}

/// Finds out, by changing it for a moment, whether it is the variable, or only looks like it.
bool try_candidate(WideStrings& candidate, GetArguments get) {
    int count = 0;
    wchar_t** strings = nullptr;
    --candidate.count;
    get(&count, &strings);
    ++candidate.count;
    return count == candidate.count - 1;
}

int search(dl_phdr_info* library, std::size_t, void* argument) {
    auto& wanted = *static_cast<Wanted*>(argument);
    if (!contains(*library, reinterpret_cast<std::uintptr_t>(wanted.get))) return 0;
    for (int i = 0; i < library->dlpi_phnum; ++i) {
        const ElfW(Phdr)& segment = library->dlpi_phdr[i];
        if (segment.p_type != PT_LOAD || !(segment.p_flags & PF_W)) continue;
        auto* word = reinterpret_cast<WideStrings*>((library->dlpi_addr + segment.p_vaddr + 7) &
                                                    ~std::uintptr_t{7});
        const auto end = library->dlpi_addr + segment.p_vaddr + segment.p_memsz;
        for (; reinterpret_cast<std::uintptr_t>(word + 1) <= end;
             word = reinterpret_cast<WideStrings*>(&word->strings))
            if (word->strings == wanted.value.strings && word->count == wanted.value.count &&
                try_candidate(*word, wanted.get)) {
                wanted.found = word;
                return 1;
            }
    }
    return 1;
}

/// Copies with malloc, which is what CPython allocates such things with, and frees them.
wchar_t* copy_wide(PyObject* text) {
    const Py_ssize_t size = PyUnicode_AsWideChar(text, nullptr, 0);  // with the null at the end
    if (size < 0) return nullptr;
    auto* copy =
        static_cast<wchar_t*>(std::malloc(static_cast<std::size_t>(size) * sizeof(wchar_t)));
    if (!copy)
        PyErr_NoMemory();
    else if (PyUnicode_AsWideChar(text, copy, size) < 0)
        return nullptr;
    return copy;
}

}  // namespace

void find_original_arguments() {
    Wanted wanted{reinterpret_cast<GetArguments>(::dlsym(RTLD_DEFAULT, "Py_GetArgcArgv")), {}};
    if (!wanted.get) return;
    int count = 0;
    wanted.get(&count, &wanted.value.strings);
    wanted.value.count = count;
    if (count > 0 && wanted.value.strings) ::dl_iterate_phdr(search, &wanted);
    original = wanted.found;
}

bool set_original_arguments(PyObject* list) {
    if (!original) return true;
    const Py_ssize_t count = PyList_Size(list);
    auto** strings =
        static_cast<wchar_t**>(std::calloc(static_cast<std::size_t>(count) + 1, sizeof(wchar_t*)));
    if (!strings) {
        PyErr_NoMemory();
        return false;
    }
    for (Py_ssize_t i = 0; i < count; ++i) {
        strings[i] = copy_wide(PyList_GetItem(list, i));
        if (!strings[i]) {
            std::free(strings);  // the texts are left: the child ends by this
            return false;
        }
    }
    *original = {count, strings};
    return true;
}

}  // namespace warmfork::python
