// Which pages of the image a child has written to: what an object refers to from any other page is
// as it was, and need not be looked at.
//
// The kernel tells of each page whether some other process has it mapped as well. A page that a
// child of a template has written to is its own. One that it has not written to it shares with its
// template or with a sibling; where nobody else is left, it only looks written to. But a process
// that the child has forked shares what the child had written. So there is a page that each child
// writes to before its program begins, and nobody after that: while it is shared, nothing is known.
// Nothing is known either where the kernel merges pages that are alike.
#pragma once

#include <cstddef>
#include <cstdint>
#include <utility>
#include <vector>

#include "python/object_layout.hpp"

namespace warmfork::python {

class ImagePages {
  public:
    /// Forgets, in the template, what was added.
    void clear();
    /// Adds, in the template, the next object, and where it keeps what it refers to. Where there
    /// are no parts, that never changes, and the object is never chosen; where they are null, it is
    /// not known, and the object is chosen in any case. May throw std::bad_alloc.
    void add(const void* head, const std::vector<Extent>* parts);
    /// Ends the list, in the template, when all have been added. May throw std::bad_alloc.
    void close();

    /// Prepares a child. Must be called before its program begins.
    static void begin_child();
    /// Asks the kernel, in a child with one thread, and chooses the objects that may refer to
    /// something else than they did. Returns false where nothing is known. Does not allocate. Asks
    /// nothing where the program may have forbidden that: such a system call can be the last one of
    /// a process.
    bool choose();

    /// Returns the first of the chosen from this one on, or the count of all where there is none.
    std::size_t next_chosen(std::size_t index) const;
    bool is_chosen(std::size_t index) const { return chosen_[index / 64] >> index % 64 & 1; }
    /// Is the head of an object on a page that may have been written to?
    bool is_head_written(std::size_t index) const {
        return state_of_head(index) != State::as_it_was;
    }
    /// Is that page gone?
    bool is_head_gone(std::size_t index) const { return state_of_head(index) == State::gone; }
    std::size_t size() const { return head_pages_.size(); }

  private:
    using Index = std::uint32_t;
    enum class State : unsigned char { as_it_was, written, gone };

    static State state_of(std::uint64_t entry);
    State state_of_head(std::size_t index) const { return states_[head_pages_[index]]; }
    bool read(int pagemap, std::size_t first, std::size_t count);
    void mark(Index object) { chosen_[object / 64] |= std::uint64_t{1} << object % 64; }

    std::vector<std::pair<std::uintptr_t, Index>> added_;  ///< pages, and objects with parts there
    std::vector<Index> unknown_;                           ///< objects
    std::vector<std::uintptr_t> heads_;                    ///< pages of the objects' heads
    std::vector<std::uintptr_t> pages_;                    ///< their numbers, in order
    std::vector<Index>
        begins_;  ///< of each page's objects in `objects_`, and the end of the last's
    std::vector<Index> objects_;
    std::vector<Index> head_pages_;      ///< of each object, as an index into `pages_`
    std::vector<State> states_;          ///< of each page
    std::vector<std::uint64_t> chosen_;  ///< a bit for each object
    const bool* has_filter_ = nullptr;   ///< of system calls; null: nobody knows
};

}  // namespace warmfork::python
