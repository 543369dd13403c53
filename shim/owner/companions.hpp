// Where the files lie that the shim starts or hands to a template. They are looked for beside the
// shim itself, so that a build tree, an installed package and a copied Python package each find
// their own.
#pragma once

#include <string>

namespace warmfork {

/// Returns the full path of a companion ("warmfork-keeper", "libwarmfork-preload.so", "warmforkd"),
/// or an empty one where it is not found.
[[nodiscard]] std::string find_companion(const std::string& name);

/// Returns the directory that holds the Python package `warmfork`, or an empty path where it is not
/// found.
[[nodiscard]] std::string find_python_path();

}  // namespace warmfork
