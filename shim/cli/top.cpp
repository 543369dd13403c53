#include <fmt/color.h>
#include <fmt/format.h>
#include <unistd.h>

#include <cstdlib>
#include <deque>
#include <thread>

#include "cli/board_view.hpp"
#include "cli/commands.hpp"
#include "cli/screen.hpp"

namespace warmfork::cli {
namespace {

using Clock = std::chrono::steady_clock;

constexpr std::chrono::seconds kPeriod{1};
/// Percentiles are of the spawns of this many periods: enough for a figure, few enough to be
/// current.
constexpr std::size_t kWindow = 10;

struct Sample {
    Clock::time_point time;
    BoardSnapshot board;
};

/// Returns by how much a count has grown. What seems to have shrunk began anew.
std::uint64_t grown(std::uint64_t now, std::uint64_t before) {
    return now >= before ? now - before : now;
}

LatencyCounts grown(const LatencyCounts& now, const LatencyCounts& before) {
    LatencyCounts counts;
    for (std::size_t i = 0; i < counts.size(); ++i) counts[i] = grown(now[i], before[i]);
    return counts;
}

LatencyCounts latency_of(const std::string& name, const BoardSnapshot& board) {
    for (const TemplateSnapshot& entry : board.templates)
        if (entry.name == name) return entry.latency;
    return {};
}

class History {
  public:
    void add(BoardSnapshot board) {
        if (!samples_.empty() && (samples_.back().board.pid != board.pid ||
                                  samples_.back().board.start_ticks != board.start_ticks))
            samples_.clear();  // another daemon
        samples_.push_back({Clock::now(), std::move(board)});
        if (samples_.size() > kWindow + 1) samples_.pop_front();
    }

    const BoardSnapshot& now() const { return samples_.back().board; }

    /// Returns the rate by the second, over the last period; "-" before there is one.
    std::string rate_of(std::uint64_t now, std::uint64_t before) const {
        if (samples_.size() < 2) return "-";
        const std::chrono::duration<double> time = samples_.back().time - last().time;
        return fmt::format("{:.1f}", static_cast<double>(grown(now, before)) / time.count());
    }
    const Sample& last() const { return samples_[samples_.size() < 2 ? 0 : samples_.size() - 2]; }

    const Sample& first() const { return samples_.front(); }

  private:
    std::deque<Sample> samples_;
};

/// Adds a row. With `is_live` it has percentiles of the window, and colours.
void add_row(Table& table, const History& history, const TemplateSnapshot& entry, bool is_live) {
    const std::uint64_t spawns = latency_total(entry.latency);
    const LatencyCounts earlier = latency_of(entry.name, history.last().board);
    const LatencyCounts shown =
        is_live ? grown(entry.latency, latency_of(entry.name, history.first().board))
                : entry.latency;
    const std::string failing = failing_text(entry);
    table.add({entry.name, state_cell(entry.state), entry.spares, entry.leased, entry.children,
               spawns, history.rate_of(spawns, latency_total(earlier)), percentile_text(shown, 0.5),
               percentile_text(shown, 0.9), percentile_text(shown, 0.99), cold_total(entry.cold),
               failing.empty() ? cold_text(entry.cold) : failing});
}

std::vector<std::string> compose(const History& history, bool is_live) {
    const BoardSnapshot& board = history.now();
    const BoardSnapshot& before = history.last().board;
    std::vector<std::string> lines{
        identity_text(board) + (is_live ? "; q quits" : ""),
        fmt::format("clients {}, children {}; warm spawns {}, {} a second; cold {}, {} a second",
                    board.clients_connected, board.children, board.spawns,
                    history.rate_of(board.spawns, before.spawns), cold_total(board.cold),
                    history.rate_of(cold_total(board.cold), cold_total(before.cold))),
        ""};
    Table table({"<TEMPLATE", "<STATE", "SPARES", "LEASED", "CHILDREN", "SPAWNS", "A SECOND", "P50",
                 "P90", "P99", "COLD", "<WHY"},
                is_live);
    for (const TemplateSnapshot& entry : board.templates) add_row(table, history, entry, is_live);
    for (std::string& line : table.lines()) lines.push_back(std::move(line));
    if (std::string missing = missing_text(board); !missing.empty()) lines.push_back(missing);
    return lines;
}

int print_once(const BoardOptions& options) {
    History history;
    for (int samples = 0; samples < 2; ++samples) {
        if (samples) std::this_thread::sleep_for(kPeriod);
        BoardSnapshot board;
        std::string text;
        if (const int status = find_board(options, board, text)) {
            fmt::print(stderr, "warmfork: {}\n", text);
            return status;
        }
        history.add(std::move(board));
    }
    for (const std::string& line : compose(history, false)) fmt::print("{}\n", line);
    return 0;
}

/// Shows the board until the person or a signal ends it; a daemon that ends is waited for. Returns
/// the signal.
int show_live(const BoardOptions& options) {
    Screen screen;
    History history;
    Clock::time_point next = Clock::now();
    std::vector<std::string> lines;
    while (true) {
        if (Clock::now() >= next) {
            next = Clock::now() + kPeriod;
            BoardSnapshot board;
            std::string text;
            if (find_board(options, board, text) == 0) {
                history.add(std::move(board));
                lines = compose(history, true);
            } else {
                history = {};
                lines = {text + "; waiting for it; q quits"};
            }
        }
        int signal = 0;
        if (!screen.draw(lines)) return 0;
        if (screen.wait_until(next, signal) == Screen::Event::quit) return signal;
    }
}

bool can_be_drawn_on() {
    const char* const kind = std::getenv("TERM");
    return ::isatty(STDOUT_FILENO) && kind && *kind && std::string_view(kind) != "dumb";
}

}  // namespace

int show_top(const BoardOptions& options) {
    if (!can_be_drawn_on()) return print_once(options);
    BoardSnapshot board;
    std::string text;
    if (const int status = find_board(options, board, text)) {
        fmt::print(stderr, "warmfork: {}\n", text);
        return status;
    }
    if (const int signal = show_live(options)) end_by(signal);
    return 0;
}

}  // namespace warmfork::cli
