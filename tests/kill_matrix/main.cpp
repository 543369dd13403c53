// The kill matrix: every cell of the table in cells.cpp, several at once.
//
//     test-kill-matrix [--only TEXT] [--jobs N] [--chance ROUNDS] [--seed N] [--verbose] [--table]
//
// --only: cells whose name has this text. --verbose: prints each outcome, and the caller's words.
// --chance: so many rounds in which anybody is killed or stopped at any moment, instead of the
// cells. --table: prints the table of outcomes.
#include <fmt/format.h>
#include <poll.h>
#include <sys/wait.h>
#include <unistd.h>

#include <chrono>
#include <cstdlib>
#include <deque>
#include <fstream>
#include <iterator>
#include <map>
#include <string_view>

#include "kill_matrix/cell_run.hpp"

namespace {

struct Job {
    std::string name;
    CellPlan plan;
};

struct Running {
    Job job;
    RunningCell cell;
    std::string text;
};

class Walk {
  public:
    Walk(std::deque<Job> jobs, std::size_t most, bool is_verbose)
        : jobs_(std::move(jobs)), most_(most), is_verbose_(is_verbose) {}

    /// The number of cells in which something was wrong.
    int run() {
        const std::size_t count = jobs_.size();
        const auto began = std::chrono::steady_clock::now();
        while (!jobs_.empty() || !running_.empty()) {
            while (!jobs_.empty() && running_.size() < most_) start_next();
            collect();
        }
        const auto taken = std::chrono::duration_cast<std::chrono::seconds>(
            std::chrono::steady_clock::now() - began);
        std::string outcomes;
        for (const auto& [outcome, times] : outcomes_)
            outcomes += fmt::format(" {} {}", outcome, times);
        fmt::print("{} cells in {} seconds, {} of them wrong; outcomes:{}\n", count, taken.count(),
                   wrong_, outcomes);
        return wrong_;
    }

  private:
    void start_next() {
        running_.push_back({std::move(jobs_.front()), {}, {}});
        jobs_.pop_front();
        running_.back().cell = start_cell(running_.back().job.plan);
    }

    void collect() {
        std::vector<pollfd> polled;
        for (const Running& running : running_) polled.push_back({running.cell.output, POLLIN, 0});
        ::poll(polled.data(), polled.size(), -1);
        for (std::size_t i = running_.size(); i-- > 0;) {
            if (!polled[i].revents) continue;
            char buffer[4096];
            const ssize_t size = ::read(running_[i].cell.output, buffer, sizeof buffer);
            if (size > 0) {
                running_[i].text.append(buffer, static_cast<std::size_t>(size));
                continue;
            }
            ::close(running_[i].cell.output);
            ::waitpid(running_[i].cell.pid, nullptr, 0);
            tell(running_[i]);
            running_.erase(running_.begin() + static_cast<std::ptrdiff_t>(i));
        }
    }

    void tell(const Running& ended) {
        const CellResult result = read_result(ended.text);
        ++outcomes_[result.outcome];
        if (is_verbose_) fmt::print("{}: {} {}\n", ended.job.name, result.outcome, result.text);
        if (result.wrong.empty()) return;
        ++wrong_;
        fmt::print("WRONG {}: outcome \"{}\"\n{}\n", ended.job.name, result.outcome, result.wrong);
        std::fflush(stdout);
    }

    std::deque<Job> jobs_;
    const std::size_t most_;
    const bool is_verbose_;
    std::vector<Running> running_;
    std::map<std::string, int> outcomes_;
    int wrong_ = 0;
};

std::deque<Job> all_cells(const std::string& only) {
    std::deque<Job> jobs;
    for (Action action : {Action::hang, Action::kill, Action::stop})  // what takes longest first
        for (const Cell& cell : cells()) {
            if (!*cell.outcomes[static_cast<int>(action)]) continue;
            const std::string name =
                fmt::format("{} | {} | {}", name_of(cell.scene), cell.point, name_of(action));
            if (name.find(only) != std::string::npos) jobs.push_back({name, {cell, action, {}}});
        }
    return jobs;
}

std::deque<Job> rounds_by_chance(int rounds, std::uint32_t seed) {
    std::deque<Job> jobs;
    for (int round = 0; round < rounds; ++round) {
        const std::uint32_t number = seed * 1'000'000 + static_cast<std::uint32_t>(round);
        const auto scene = static_cast<Scene>(number % (static_cast<int>(Scene::reload) + 1));
        jobs.push_back({fmt::format("{} | seed {} round {}", name_of(scene), seed, round),
                        {{scene, "", false, {"", "", ""}}, Action::kill, number}});
    }
    return jobs;
}

/// 0, or 1 where the README says otherwise.
int compare_with_readme() {
    std::ifstream file(WARMFORK_KILL_MATRIX_README);
    const std::string text{std::istreambuf_iterator<char>(file), {}};
    if (text.find(table_of_cells()) != std::string::npos) return 0;
    fmt::print("WRONG: {} has not the table that --table prints\n", WARMFORK_KILL_MATRIX_README);
    return 1;
}

}  // namespace

int main(int argc, char** argv) {
    std::string only;
    std::size_t jobs = 6;
    int rounds = 0;
    std::uint32_t seed = 1;
    bool is_verbose = false;
    for (int i = 1; i < argc; ++i) {
        const std::string_view option(argv[i]);
        const char* value = i + 1 < argc ? argv[i + 1] : "";
        if (option == "--table") {
            fmt::print("{}", table_of_cells());
            return 0;
        }
        if (option == "--verbose") {
            is_verbose = true;
            continue;
        }
        if (option == "--only")
            only = value;
        else if (option == "--jobs")
            jobs = std::strtoul(value, nullptr, 10);
        else if (option == "--chance")
            rounds = std::atoi(value);
        else if (option == "--seed")
            seed = static_cast<std::uint32_t>(std::atoi(value));
        else
            return 64;
        ++i;
    }
    if (rounds > 0) return Walk(rounds_by_chance(rounds, seed), jobs, is_verbose).run() != 0;
    const int wrong = Walk(all_cells(only), jobs, is_verbose).run() + compare_with_readme();
    return wrong != 0;
}
