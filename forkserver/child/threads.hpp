// The threads of a process, where nothing may be allocated.
#pragma once

#include "child/setup.hpp"
#include "protocol/record.hpp"

namespace warmfork {

/// Is the calling thread the only one of its process? It takes one system call. Returns false where
/// that cannot be asked.
[[nodiscard]] bool is_single_threaded();

/// Brings the other threads, which a fork handler has started in a newborn child, into the state
/// that the record describes and `set_up_child` gives the calling thread alone: affinity and nice
/// value. The threads are expected to have an empty signal mask. Where it returns false,
/// `ret_failure` says why not: at stage gate where the record asks for what only a thread itself
/// can change (signal mask, no_new_privs).
[[nodiscard]] bool set_up_other_threads(const RecordView& record, ChildFailure& ret_failure);

}  // namespace warmfork
