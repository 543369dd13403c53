// A board of this test process alone, and who else may write to it.
#pragma once

#include <fmt/format.h>
#include <sys/wait.h>
#include <unistd.h>

#include <boost/interprocess/mapped_region.hpp>
#include <boost/interprocess/shared_memory_object.hpp>
#include <string>

#include "service/board.hpp"
#include "service/board_object.hpp"
#include "service/board_reader.hpp"
#include "support/catch.hpp"

namespace warmfork {

namespace interprocess = boost::interprocess;

/// An instance of this test process alone.
inline std::string instance() {
    return fmt::format("test-{}", ::getpid());
}

inline std::string object_name() {
    return board_name(::geteuid(), instance());
}

inline int read(BoardSnapshot& ret_snapshot) {
    return read_board(::geteuid(), instance(), ret_snapshot);
}

inline BoardSnapshot snapshot() {
    BoardSnapshot read_now;
    REQUIRE(read(read_now) == 0);
    return read_now;
}

inline Board make_board() {
    Board board;
    REQUIRE(Board::create(instance(), board) == 0);
    return board;
}

/// What somebody else who may write to the board sees of it.
struct RawBoard {
    RawBoard()
        : object(interprocess::open_only, object_name().c_str(), interprocess::read_write),
          region(object, interprocess::read_write) {}
    BoardLayout& layout() { return *static_cast<BoardLayout*>(region.get_address()); }

    interprocess::shared_memory_object object;
    interprocess::mapped_region region;
};

/// An object with the board's name that is no board, removed again.
struct Imposter {
    explicit Imposter(std::size_t size) {
        interprocess::shared_memory_object made(interprocess::create_only, object_name().c_str(),
                                                interprocess::read_write);
        // Not to nothing: some versions of the library take that for an error.
        if (size > 0) made.truncate(static_cast<interprocess::offset_t>(size));
    }
    ~Imposter() { interprocess::shared_memory_object::remove(object_name().c_str()); }
};

/// Runs in a process of its own, which may be killed.
template <typename Body>
inline pid_t in_child(Body body) {
    const pid_t pid = ::fork();
    if (pid == 0) {
        body();
        ::_exit(0);
    }
    return pid;
}

inline int wait_for(pid_t pid) {
    int status = -1;
    ::waitpid(pid, &status, 0);
    return status;
}

}  // namespace warmfork
