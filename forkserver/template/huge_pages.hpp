// The memory of an image on huge pages: a fork then copies one entry of the page table for two
// megabytes, where it copied 512, and the child's end gives back as few. What a child writes to is
// copied by the small page, as before.
#pragma once

#include <cstddef>

namespace warmfork {

/// Moves what this process alone has in memory, and most of which it has written to, onto huge
/// pages. It is not for a process that shares memory with the one that it was forked from: it would
/// get copies. Does what the kernel lets it (Linux 6.1: MADV_COLLAPSE), and nothing without; no
/// failure matters. Takes some 0.3 ms a megabyte, and little more than two seconds at most.
void use_huge_pages();

/// Returns how much lies on them now, in KiB.
[[nodiscard]] std::size_t huge_kilobytes();

}  // namespace warmfork
