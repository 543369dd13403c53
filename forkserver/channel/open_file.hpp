// Which open file a number stands for: the same one as another number, or another one?
#pragma once

#include <optional>

namespace warmfork {

/// Do both numbers of this process stand for one open file? Returns nothing where it cannot be
/// told. It asks kcmp(2), and where that is forbidden, as in most containers, it looks at the
/// signal of F_SETSIG, which belongs to the open file and means nothing before O_ASYNC: what
/// `other` is given, and then loses, `one` shows as well. Allocates and locks nothing; is safe
/// between fork and exec, and where several look at once.
[[nodiscard]] std::optional<bool> is_same_open_file(int one, int other);

}  // namespace warmfork
