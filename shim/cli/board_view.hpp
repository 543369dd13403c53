// What `status` and `top` have in common: finding the board, and how its numbers read.
#pragma once

#include <fmt/color.h>

#include <string>
#include <vector>

#include "cli/commands.hpp"
#include "service/board_reader.hpp"

namespace warmfork::cli {

/// The exit status where no daemon runs, which is the one of systemctl status.
inline constexpr int kNoDaemon = 3;

/// Reads the board of the daemon that the options name. Returns the exit status: 0, kNoDaemon (none
/// runs) or 1 (it cannot be read), the last two with a text for people.
[[nodiscard]] int find_board(const BoardOptions& options, BoardSnapshot& ret_snapshot,
                             std::string& ret_text);

/// Returns "warmforkd 0.1.0, pid 4711, up 3 s, on /run/user/1000/warmfork/socket".
std::string identity_text(const BoardSnapshot& snapshot);
/// Returns the name of a reason by its number on the board.
const char* cold_name(std::size_t reason);
std::uint64_t cold_total(const ColdCounts& counts);
/// Returns "stale 9, environment 8", the most frequent first; empty where there are none.
std::string cold_text(const ColdCounts& counts);

/// Returns "61 µs", "1.2 ms" and the like.
std::string duration_text(double microseconds);
/// Returns the time that this part of what was counted did not exceed; "-" if nothing was.
std::string percentile_text(const LatencyCounts& counts, double part);
/// Returns "2 d 3 h", "12 min 5 s" and the like.
std::string span_text(std::chrono::nanoseconds span);
/// Returns the amount, or "-" for 0, which stands for not known.
std::string memory_text(std::uint64_t bytes);
/// Returns "retry in 12 s: ModuleNotFoundError: ..."; empty unless the template is failing.
std::string failing_text(const TemplateSnapshot& entry);
/// Returns what the board did not show; empty where it showed all.
std::string missing_text(const BoardSnapshot& snapshot);

/// Text in columns that are two spaces apart.
class Table {
  public:
    struct Cell {
        Cell(std::string given, fmt::text_style with = {}) : text(std::move(given)), style(with) {}
        Cell(const char* given) : text(given) {}
        Cell(std::uint64_t number) : text(std::to_string(number)) {}
        std::string text;
        fmt::text_style style;
    };

    /// A heading that begins with '<' is that of a column of words, the others are of numbers.
    /// `is_coloured` says that the styles of the cells are shown.
    Table(const std::vector<std::string>& headings, bool is_coloured);
    void add(std::vector<Cell> row) { rows_.push_back(std::move(row)); }
    /// Returns the headings' line, then one for each row.
    std::vector<std::string> lines() const;

  private:
    std::string line(const std::vector<Cell>& row, const std::vector<std::size_t>& widths) const;

    std::vector<bool> is_word_;
    std::vector<std::vector<Cell>> rows_;
    bool is_coloured_;
};

/// Returns a template's state in its colour.
Table::Cell state_cell(TemplateState state);

}  // namespace warmfork::cli
