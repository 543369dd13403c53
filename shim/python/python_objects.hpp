// Ownership and conversion of Python objects.
#pragma once

#include <Python.h>

#include <cstdlib>
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

/// A sequence of bytes objects as the null-terminated array that C wants; None is a null pointer.
/// The sequence must outlive it.
class StringArray {
  public:
    /// False with an exception set.
    bool read(PyObject* sequence) {
        if (sequence == Py_None) return true;
        const Py_ssize_t size = PySequence_Size(sequence);
        if (size < 0) return false;
        pointers_.reserve(static_cast<std::size_t>(size) + 1);
        for (Py_ssize_t i = 0; i < size; ++i) {
            Reference item(PySequence_GetItem(sequence, i));
            char* text = nullptr;
            // No length asked for: an embedded null byte is a ValueError.
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

inline bool read_integer(PyObject* sequence, Py_ssize_t index, long& ret_value) {
    Reference item(PySequence_GetItem(sequence, index));
    if (!item) return false;
    ret_value = PyLong_AsLong(item.get());
    return ret_value != -1 || !PyErr_Occurred();
}

}  // namespace warmfork::python
