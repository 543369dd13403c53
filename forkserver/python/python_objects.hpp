// Ownership and conversion of Python objects.
#pragma once

#include <Python.h>

#include <cstdlib>
#include <cstring>
#include <utility>
#include <vector>

namespace warmfork::python {

/// A strong reference; null stands for an exception that is set.
class Reference {
  public:
    explicit Reference(PyObject* object) : object_(object) {}
    Reference(Reference&& other) noexcept : object_(std::exchange(other.object_, nullptr)) {}
    Reference& operator=(Reference&& other) noexcept {
        std::swap(object_, other.object_);
        return *this;
    }
    ~Reference() { Py_XDECREF(object_); }

    PyObject* get() const { return object_; }
    PyObject* release() { return std::exchange(object_, nullptr); }
    explicit operator bool() const { return object_ != nullptr; }

  private:
    PyObject* object_;
};

/// Is this an interpreter of that version or later?
inline bool is_version_from(long hexversion) {
    return PyLong_AsLong(PySys_GetObject("hexversion")) >= hexversion;
}

/// A sequence of bytes objects as the null-terminated array that C wants; None is a null pointer.
/// The sequence must outlive it.
class StringArray {
  public:
    /// Returns false with an exception set.
    bool read(PyObject* sequence) {
        if (sequence == Py_None) return true;
        const Py_ssize_t size = PySequence_Size(sequence);
        if (size < 0) return false;
        pointers_.reserve(static_cast<std::size_t>(size) + 1);
        for (Py_ssize_t i = 0; i < size; ++i) {
            Reference item(PySequence_GetItem(sequence, i));
            char* text = nullptr;
            // As no length is asked for, an embedded null byte is a ValueError.
            if (!item || PyBytes_AsStringAndSize(item.get(), &text, nullptr) < 0) return false;
            pointers_.push_back(text);
        }
        pointers_.push_back(nullptr);
        return true;
    }
    const char* const* get() const { return pointers_.empty() ? nullptr : pointers_.data(); }

  private:
    std::vector<const char*> pointers_;
};

/// Strings, paths or bytes, encoded as os.fsencode does it, as the null-terminated array that C
/// wants. Its functions return false with an exception set.
class EncodedStrings {
  public:
    bool add(PyObject* text) {
        PyObject* encoded = nullptr;
        // An embedded null byte is a ValueError.
        if (!PyUnicode_FSConverter(text, &encoded)) return false;
        encoded_.emplace_back(encoded);
        pointers_.push_back(PyBytes_AsString(encoded));
        return true;
    }
    /// `ret_text` is null for None.
    bool add_optional(PyObject* text, const char*& ret_text) {
        ret_text = nullptr;
        if (text == Py_None) return true;
        if (!add(text)) return false;
        ret_text = pointers_.back();
        return true;
    }
    bool add_all(PyObject* list) {
        const Py_ssize_t size = PyList_Size(list);
        for (Py_ssize_t i = 0; i < size; ++i)
            if (!add(PyList_GetItem(list, i))) return false;
        pointers_.push_back(nullptr);
        return size >= 0;
    }
    /// Adds "name=value" for each entry of a mapping. For None there is no array.
    bool add_variables(PyObject* mapping) {
        if (mapping == Py_None) return true;
        Reference items(PyMapping_Items(mapping));
        const Py_ssize_t size = items ? PyList_Size(items.get()) : -1;
        for (Py_ssize_t i = 0; i < size; ++i) {
            EncodedStrings pair;
            PyObject *name, *value;
            if (!PyArg_ParseTuple(PyList_GetItem(items.get(), i), "OO", &name, &value) ||
                !pair.add(name) || !pair.add(value))
                return false;
            if (std::strchr(pair.pointers_[0], '=')) {
                PyErr_SetString(PyExc_ValueError, "illegal environment variable name");
                return false;
            }
            Reference variable(PyBytes_FromFormat("%s=%s", pair.pointers_[0], pair.pointers_[1]));
            if (!variable || !add(variable.get())) return false;
        }
        pointers_.push_back(nullptr);
        return size >= 0;
    }
    /// The array lives as long as this object.
    const char* const* get() const { return pointers_.empty() ? nullptr : pointers_.data(); }

  private:
    std::vector<Reference> encoded_;
    std::vector<const char*> pointers_;
};

/// Returns an attribute that the object or its type has, without running Python code, except that
/// of a property. Returns null, with no exception set, where there is none.
inline Reference plain_attribute(PyObject* object, const char* name) {
    const Reference key(PyUnicode_FromString(name));
    Reference value(key ? PyObject_GenericGetAttr(object, key.get()) : nullptr);
    PyErr_Clear();
    return value;
}

inline bool read_integer(PyObject* sequence, Py_ssize_t index, long& ret_value) {
    Reference item(PySequence_GetItem(sequence, index));
    if (!item) return false;
    ret_value = PyLong_AsLong(item.get());
    return ret_value != -1 || !PyErr_Occurred();
}

}  // namespace warmfork::python
