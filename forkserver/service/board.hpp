// The statistics board, as warmforkd writes it: a named shared memory object that anybody of the
// daemon's own user may read at any time, at no cost to the daemon (board_reader.hpp;
// protocol/README.md draws it).
//
// It is passive: the daemon calls a setter when something has changed. A call is a few stores into
// mapped memory: no system call, no lock, no allocation. Only the thread that made the board may
// call. Nothing is ever read back that could lead the daemon astray: if another process of the same
// user scribbles on the board, that spoils what is shown, and nothing else.
//
// A board that is not there (default constructed, or `create` failed) takes every call and shows
// nothing, and so do the entries that come from it.
#pragma once

#include <sys/types.h>

#include <boost/interprocess/mapped_region.hpp>
#include <chrono>
#include <cstdint>
#include <span>
#include <string>
#include <string_view>

#include "protocol/board_layout.hpp"
#include "warmfork.h"

namespace warmfork {

/// A template's place on the board, move-only, given back when it is destroyed. Counts go on where
/// they stood when a template of the same name gets a place again. It must not outlive the board.
class TemplateEntry {
  public:
    TemplateEntry() = default;
    TemplateEntry(TemplateEntry&& other) noexcept;
    TemplateEntry& operator=(TemplateEntry&& other) noexcept;
    ~TemplateEntry();

    /// Sets any state but `free` and `failing`. This takes a back-off away, and `ready` the last
    /// error as well.
    void set_state(TemplateState state);
    /// Says that it did not start, or ended, and is tried again after `back_off`. `last_line` is
    /// the last one that it wrote; the first 256 bytes are kept.
    void set_failing(std::chrono::milliseconds back_off, std::string_view last_line);

    /// Sets the pid of the first image (0: none), and how many images there are.
    void set_images(pid_t pid, std::uint64_t count);
    /// Counts an image that was started.
    void count_start();
    /// Says that an image has become ready after this time.
    void set_preload(std::chrono::milliseconds duration);
    /// Sets how many spares are parked and not leased, how many clients hold, and how many children
    /// are alive.
    void set_population(std::uint64_t spares, std::uint64_t leased, std::uint64_t children);
    /// Sets the resident and proportional memory of its images, without their children, in kB; 0:
    /// not known.
    void set_memory(std::uint64_t resident_kb, std::uint64_t proportional_kb);

    /// Counts a warm spawn, for the daemon as well. `latency` is the time from the request to
    /// `started`.
    void count_spawn(std::chrono::microseconds latency);
    /// Counts a spawn that was served cold, for the daemon as well.
    void count_cold(enum warmfork_reason reason);

    /// Returns false where the board is full (or not there), and only the daemon's totals show what
    /// is counted.
    bool is_shown() const { return place_ != nullptr; }

  private:
    friend class Board;
    TemplateEntry(BoardLayout* board, Published<BoardTemplate>* place)
        : board_(board), place_(place) {}

    BoardLayout* board_ = nullptr;
    Published<BoardTemplate>* place_ = nullptr;
};

/// A client's place on the board, move-only, given back when it is destroyed. It must not outlive
/// the board.
class ClientEntry {
  public:
    ClientEntry() = default;
    ClientEntry(ClientEntry&& other) noexcept;
    ClientEntry& operator=(ClientEntry&& other) noexcept;
    ~ClientEntry();

    /// Sets how many children are alive, how many spares it holds, and its spawns since it
    /// connected.
    void set_usage(std::uint64_t children, std::uint64_t leases, std::uint64_t spawns);
    /// Sets the memory of its children's cgroups in bytes, and their processor time in
    /// microseconds; 0: not known.
    void set_cost(std::uint64_t memory, std::uint64_t cpu_us);

    /// Returns what is_shown of TemplateEntry does.
    bool is_shown() const { return place_ != nullptr; }

  private:
    friend class Board;
    ClientEntry(BoardLayout* board, Published<BoardClient>* place) : board_(board), place_(place) {}

    BoardLayout* board_ = nullptr;
    Published<BoardClient>* place_ = nullptr;
};

class Board {
  public:
    Board() = default;
    Board(Board&& other) noexcept;
    Board& operator=(Board&& other) noexcept;
    /// Removes the name. A daemon that is about to exec itself leaves the board as it is.
    ~Board();

    /// Makes the board of this process's effective user, mode 0600. `instance` is empty for the
    /// user's own daemon. What a dead daemon left is replaced. The board that this very process
    /// made before it exec'd itself is taken over: totals, and counts of templates that ask for
    /// their entry again by name, go on. All its memory is taken now, so that no later call can
    /// fail.
    ///
    /// Returns 0 or errno: EEXIST (a live daemon's), EACCES (somebody else's object is in the way),
    /// EINVAL (no name for an instance), ENOSPC and ENOMEM, EMFILE, ENFILE. The daemon can do
    /// without a board.
    [[nodiscard]] static int create(std::string_view instance, Board& ret_board);

    /// Does what `create` does, under the first of these names that no live daemon has, or the one
    /// that this process had before it exec'd itself, if it is among them. Returns EEXIST where all
    /// are taken.
    [[nodiscard]] static int create_one_of(std::span<const std::string> instances,
                                           Board& ret_board);

    /// Returns an entry for a template (the first 64 bytes of its name count). A name has one at a
    /// time: give the old one back first. `base` is the template that it extends; empty: none.
    [[nodiscard]] TemplateEntry template_entry(std::string_view name, std::string_view base = {});

    /// Returns an entry for a client that has connected. `command` is its comm.
    [[nodiscard]] ClientEntry client_entry(pid_t pid, uid_t uid, std::string_view command);

    /// Sets the path of the socket that the daemon listens on, by which its clients find the board.
    void set_socket(std::string_view path);

    /// Sets how many children of all templates are alive.
    void set_children(std::uint64_t alive);

    explicit operator bool() const { return layout_ != nullptr; }

  private:
    void take_over(boost::interprocess::mapped_region region);
    [[nodiscard]] int make();
    void map(boost::interprocess::mapped_region region);

    std::string name_;
    pid_t made_by_ = 0;  ///< a forked copy must not remove the name
    boost::interprocess::mapped_region region_;
    BoardLayout* layout_ = nullptr;
};

}  // namespace warmfork
