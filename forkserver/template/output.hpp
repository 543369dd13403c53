// What the template, its modules and its hooks print goes to a file in memory that the owner has
// made.
#pragma once

namespace warmfork {

/// Keeps the memory of that file bounded: of what is longer than some hundred kilobytes only the
/// last lines stay. Nothing happens to standard streams that are another file by now. Allocates
/// nothing.
void bound_output();

}  // namespace warmfork
