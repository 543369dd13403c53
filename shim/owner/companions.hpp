// Where the files lie that the shim starts or hands to a template. They are looked for beside the
// shim itself, so that a build tree, an installed package and a copied Python package each find
// their own.
#pragma once

#include <string>

namespace warmfork {

/// Full path of a companion ("warmfork-keeper", "libwarmfork-preload.so", "warmforkd"), or empty:
/// not found.
[[nodiscard]] std::string find_companion(const std::string& name);

/// The directory that holds the Python package `warmfork`, or empty: not found.
[[nodiscard]] std::string find_python_path();

}  // namespace warmfork
