// The code of the interpreter and of libc, so that children do not have to map it page by page.
#pragma once

namespace warmfork::python {

/// Must be called in a template before it forks. A fork copies the page tables of a mapping that
/// has pages of its own, and leaves those of files to be filled again by the child, fault by fault.
/// One page of the code is written as it is, as a debugger would, which makes it a mapping of the
/// first kind. Where the kernel does not let us, children map it as they go.
void share_text();

}  // namespace warmfork::python
