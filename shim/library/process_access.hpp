// For the Python package, and so not in warmfork.h: children as subprocess and multiprocessing have
// them.
#pragma once

#include "channel/descriptor.hpp"
#include "warmfork.h"

/// Is it a child of the service, and none of this process?
[[nodiscard]] bool warmfork_is_served(const warmfork_process* self);
/// A handle, to be freed, of a child that something else has just started. Null: no memory is left.
[[nodiscard]] warmfork_process* warmfork_adopt(pid_t pid);
/// warmfork_keep, of this very process.
[[nodiscard]] int warmfork_keep_adopted(const warmfork_process* self,
                                        warmfork_failure* ret_failure);
/// A pidfd that is the caller's. Empty with errno set: ESRCH, it has been reaped; EMFILE and the
/// like.
[[nodiscard]] warmfork::Descriptor warmfork_open_pidfd(const warmfork_process* self);
/// Sends a signal to this child and no other, also from a forked copy of its owner, which may end
/// what it cannot wait for. Returns 0 or errno (ESRCH: it has been reaped).
[[nodiscard]] int warmfork_signal_by_anyone(const warmfork_process* self, int signal);
