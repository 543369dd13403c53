// What warmfork._template says of the image.
#pragma once

#include <Python.h>

#include <vector>

#include "template/host.hpp"
#include "template/image_facts.hpp"

namespace warmfork::python {

/// See its `_describe`. False with an exception set.
bool read_facts(PyObject* tuple, ImageFacts& ret_facts);

/// Pairs of bytes objects. False with an exception set.
bool read_findings(PyObject* list, std::vector<Finding>& ret_findings);

}  // namespace warmfork::python
