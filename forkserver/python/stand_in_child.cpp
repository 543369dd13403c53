#define PY_SSIZE_T_CLEAN
#define Py_LIMITED_API 0x03090000
#include "python/stand_in_child.hpp"

#include <fcntl.h>
#include <sys/resource.h>
#include <unistd.h>

#include <cstddef>
#include <vector>

#include "child/setup.hpp"
#include "python/python_host.hpp"
#include "python/python_objects.hpp"
#include "template/child.hpp"

namespace warmfork::python {
namespace {

// The benchmark's stand-in for a template.
InheritedState stand_in;

}  // namespace

PyObject* prepare_to_become_child(PyObject*, PyObject* child) {
    Py_INCREF(child);
    stand_in.host = new PythonHost(child, Py_None, "", {}, "", "", {});
    stand_in.image = read_image_addresses();
    stand_in.soft_descriptor_limit = stand_in.hard_descriptor_limit = RLIM_INFINITY;
    rlimit limit{};
    if (::getrlimit(RLIMIT_NOFILE, &limit) == 0) {
        stand_in.soft_descriptor_limit = limit.rlim_cur;
        stand_in.hard_descriptor_limit = limit.rlim_max;
    }
    Py_RETURN_NONE;
}

PyObject* become_child(PyObject*, PyObject* arguments) {
    PyObject *strings, *pairs;
    int mailbox;
    if (!PyArg_ParseTuple(arguments, "OOi", &strings, &pairs, &mailbox)) return nullptr;
    StringArray argument_array;
    if (!argument_array.read(strings)) return nullptr;
    std::vector<const char*> environment;
    for (char** variable = environ; *variable; ++variable) environment.push_back(*variable);
    RecordContents contents;
    contents.header.flags = kRecordProcessGroup | kRecordSignalMask | kRecordSignalsIgnored |
                            kRecordUmask | kRecordDirectoryDescriptor;
    contents.header.owner_pid = ::getppid();
    contents.header.process_group = ::getpgrp();
    contents.header.file_mode_mask = 022;
    contents.arguments = {argument_array.get(), static_cast<std::size_t>(PySequence_Size(strings))};
    contents.environment = environment;
    std::vector<int> descriptors;
    for (Py_ssize_t i = 0; i + 1 < PySequence_Size(pairs); i += 2) {
        long source, target;
        if (!read_integer(pairs, i, source) || !read_integer(pairs, i + 1, target)) return nullptr;
        descriptors.push_back(static_cast<int>(source));
        contents.descriptor_targets.push_back(static_cast<int>(target));
    }
    descriptors.push_back(::open(".", O_PATH | O_CLOEXEC));
    std::vector<std::byte> record;
    if (encode_record(contents, record) != 0 || !stand_in.host) {
        PyErr_SetString(PyExc_ValueError, "not a valid command for a child");
        return nullptr;
    }
    if (!set_signal_mask(kAllSignals)) return PyErr_SetFromErrno(PyExc_OSError);
    // It does not come back: see PythonHost::run.
    static_cast<void>(run_child({.inherited = &stand_in,
                                 .mailbox = mailbox,
                                 .record = record,
                                 .descriptors = descriptors}));
    ::_exit(kFailedStatus);
}

}  // namespace warmfork::python
