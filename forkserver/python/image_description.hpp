// What warmfork._template says of the image.
#pragma once

#include <Python.h>

#include <vector>

#include "template/host.hpp"
#include "template/image_facts.hpp"

namespace warmfork::python {

/// Reads what its `_describe` returns. Returns false with an exception set.
bool read_facts(PyObject* tuple, ImageFacts& ret_facts);

/// Reads pairs of bytes objects. Returns false with an exception set.
bool read_findings(PyObject* list, std::vector<Finding>& ret_findings);

}  // namespace warmfork::python
