// A child with a terminal of its own.
#pragma once

#include "child/setup.hpp"

namespace warmfork {

/// Makes standard input the controlling terminal of the session that the calling process, with all
/// signals blocked, has begun. A process group that nobody of its session looks after is not
/// stopped by Ctrl-Z, and this one's parent is of another session. So it leaves two processes
/// behind, which no wait of its sees and which end with it: its child, in a group of its own, and
/// the child of that, in this process's group. False: `ret_failure` says why there is no terminal,
/// or no such process.
[[nodiscard]] bool take_terminal(ChildFailure& ret_failure);

}  // namespace warmfork
