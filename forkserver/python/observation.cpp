#define PY_SSIZE_T_CLEAN
#define Py_LIMITED_API 0x03090000
#include "python/observation.hpp"

#include <dlfcn.h>
#include <sys/resource.h>
#include <sys/stat.h>
#include <time.h>
#include <unistd.h>

#include <algorithm>
#include <cstdio>
#include <map>
#include <string>
#include <vector>

#include "python/python_objects.hpp"
#include "template/atfork.hpp"
#include "template/gate.hpp"

namespace warmfork::python {
namespace {

// What this file has asked for itself.
std::uint64_t own_questions = 0;

long long nanoseconds_of(clockid_t clock) {
    timespec now{};
    ::clock_gettime(clock, &now);
    own_questions += clock == CLOCK_REALTIME;
    return now.tv_sec * 1'000'000'000LL + now.tv_nsec;
}

/// Returns the faults of the children that were waited for: no program comes to its end without
/// one.
long long faults_of_children() {
    rusage usage{};
    ::getrusage(RUSAGE_CHILDREN, &usage);
    return usage.ru_minflt + usage.ru_majflt;
}

/// How much has been written until now. What libraries in C have buffered counts: a cold process
/// would write it at its end. So does all of a file that has become shorter or begins otherwise:
/// somebody has opened it anew to write to it.
long long count_output() {
    static long long last_size = 0, written = 0;
    static char last_begin = 0;
    std::fflush(stdout);
    std::fflush(stderr);
    struct stat status {};
    if (::fstat(1, &status) < 0) return written;
    const long long size = status.st_size;
    char begin = 0;
    static_cast<void>(::pread(1, &begin, 1, 0) < 0);
    const bool is_anew = size < last_size || (last_size > 0 && begin != last_begin);
    written += is_anew ? std::max(size, 1LL) : size - last_size;
    last_size = size;
    last_begin = begin;
    return written;
}

const AskedForIdentity* find_asked() {
    const PreloadInterface* preload = find_preload();
    if (!preload) PyErr_SetString(PyExc_RuntimeError, "the preload library is not loaded");
    return preload ? preload->asked : nullptr;
}

}  // namespace

PyObject* observe(PyObject*, PyObject*) {
    const AskedForIdentity* asked = find_asked();
    if (!asked) return nullptr;
    const long long real = nanoseconds_of(CLOCK_REALTIME);
    const long long monotonic = nanoseconds_of(CLOCK_MONOTONIC);
    std::vector<unsigned long long> seen;
    for (const std::uint64_t& count : asked->counts)
        seen.push_back(__atomic_load_n(&count, __ATOMIC_RELAXED));
    seen[kAskedClock] -= own_questions;
    const auto made =
        static_cast<long long>(__atomic_load_n(&find_preload()->made->count, __ATOMIC_RELAXED));
    for (const long long number : {faults_of_children(), count_output(), made, real, monotonic})
        seen.push_back(static_cast<unsigned long long>(number));
    Reference tuple(PyTuple_New(static_cast<Py_ssize_t>(seen.size())));
    for (std::size_t i = 0; tuple && i < seen.size(); ++i) {
        PyObject* number = PyLong_FromUnsignedLongLong(seen[i]);
        if (!number || PyTuple_SetItem(tuple.get(), static_cast<Py_ssize_t>(i), number) < 0)
            return nullptr;
    }
    return tuple.release();
}

PyObject* names_of_asked() {
    Reference names(PyTuple_New(kAskedKinds));
    for (Py_ssize_t kind = 0; names && kind < kAskedKinds; ++kind) {
        PyObject* name = PyUnicode_FromString(kAskedNames[kind]);
        if (!name || PyTuple_SetItem(names.get(), kind, name) < 0) return nullptr;
    }
    return names.release();
}

PyObject* drawn(PyObject*, PyObject*) {
    const AskedForIdentity* asked = find_asked();
    if (!asked) return nullptr;
    Reference list(PyList_New(0));
    for (std::size_t i = 0; list && i < asked->draw_count; ++i) {
        const DrawnBytes& draw = asked->draws[i];
        Reference bytes(PyBytes_FromStringAndSize(reinterpret_cast<const char*>(draw.bytes),
                                                  static_cast<Py_ssize_t>(draw.size)));
        if (!bytes || PyList_Append(list.get(), bytes.get()) < 0) return nullptr;
    }
    return list.release();
}

PyObject* made(PyObject*, PyObject*) {
    Reference list(PyList_New(0));
    const PreloadInterface* preload = find_preload();
    for (std::size_t i = 0; preload && i < preload->made->file_count; ++i) {
        const MadeFile& file = preload->made->files[i];
        Reference pair(Py_BuildValue("NN", PyUnicode_DecodeFSDefault(file.path),
                                     PyUnicode_DecodeFSDefault(file.name)));
        if (!list || !pair || PyList_Append(list.get(), pair.get()) < 0) return nullptr;
    }
    const bool are_all = !preload || preload->made->has_all_files;
    return Py_BuildValue("NO", list.release(), are_all ? Py_True : Py_False);
}

PyObject* descriptors_in_the_way(PyObject*, PyObject*) {
    const std::vector<DescriptorFact> facts = list_descriptors({});
    // A template has some open in any case: where there are none, they could not be listed.
    if (facts.empty()) return PyErr_SetFromErrno(PyExc_OSError);
    Reference numbers(PySet_New(nullptr));
    for (const DescriptorFact& fact : facts) {
        const Reference number(PyLong_FromLong(fact.number));
        if (fact.hazardous && (!number || !numbers || PySet_Add(numbers.get(), number.get()) < 0))
            return nullptr;
    }
    return numbers.release();
}

PyObject* resume_recording(PyObject*, PyObject*) {
    const PreloadInterface* preload = find_preload();
    if (preload) preload->resume_recording();
    Py_RETURN_NONE;
}

PyObject* list_for(PyObject*, PyObject* what) {
    const unsigned long listed = PyLong_AsUnsignedLong(what);
    if (PyErr_Occurred()) return nullptr;
    const PreloadInterface* preload = find_preload();
    return PyLong_FromUnsignedLong(preload ? preload->list_for(static_cast<std::uint32_t>(listed))
                                           : listed);
}

PyObject* drop_listing(PyObject*, PyObject* path) {
    const char* text = PyBytes_AsString(path);
    if (!text) return nullptr;
    if (const PreloadInterface* preload = find_preload()) preload->drop_listing(text);
    Py_RETURN_NONE;
}

PyObject* askers(PyObject*, PyObject*) {
    const AskedForIdentity* asked = find_asked();
    if (!asked) return nullptr;
    std::map<std::string, unsigned> libraries;
    for (const Asker& asker : asked->askers) {
        Dl_info library{};
        if (asker.address && ::dladdr(asker.address, &library) && library.dli_fname)
            libraries[library.dli_fname] |= asker.kinds;
    }
    if (!asked->has_all_askers) libraries["more than were noted"] = (1u << kAskedKinds) - 1;
    Reference list(PyList_New(0));
    for (const auto& [path, kinds] : libraries) {
        Reference pair(Py_BuildValue("NI", PyUnicode_DecodeFSDefault(path.c_str()), kinds));
        if (!list || !pair || PyList_Append(list.get(), pair.get()) < 0) return nullptr;
    }
    return list.release();
}

}  // namespace warmfork::python
