#include "cli/board_view.hpp"

#include <fmt/format.h>
#include <pwd.h>
#include <sys/stat.h>
#include <unistd.h>

#include <algorithm>
#include <array>
#include <charconv>
#include <cstring>
#include <optional>

#include "owner/service_address.hpp"
#include "warmfork.h"

namespace warmfork::cli {
namespace {

std::optional<uid_t> uid_of(const std::string& user) {
    if (user.empty()) return ::geteuid();
    if (const passwd* entry = ::getpwnam(user.c_str())) return entry->pw_uid;
    uid_t uid = 0;
    const char* const end = user.data() + user.size();
    const auto [at, error] = std::from_chars(user.data(), end, uid);
    if (error != std::errc() || at != end) return {};
    return uid;
}

std::string explain_failure(int error, uid_t uid, const std::string& instance) {
    const std::string whose = instance.empty() ? fmt::format("of user {}", uid)
                                               : fmt::format("\"{}\" of user {}", instance, uid);
    switch (error) {
        case ENOENT:
            return fmt::format("no warmforkd {} is running", whose);
        case ESRCH:
            return fmt::format("no warmforkd {} is running: the last one was killed", whose);
        case EACCES:
            return fmt::format(
                "cannot read the board of warmforkd {}: it is that user's alone, and root's",
                whose);
        case EPROTONOSUPPORT:
            return fmt::format(
                "warmforkd {} is of another version than this program: reload it, so that it "
                "becomes the installed one",
                whose);
        case EPROTO:
            return fmt::format("what stands for the board of warmforkd {} is not one", whose);
        case EAGAIN:
            return fmt::format(
                "what stands on the board of warmforkd {} changes all the time: either the daemon "
                "was stopped in the middle of a change, or somebody else writes to its board",
                whose);
        case EINVAL:
            return fmt::format(
                "\"{}\" cannot be a daemon's name: up to 64 letters, digits and .-_@:", instance);
        default:
            return fmt::format("cannot read the board of warmforkd {}: {}", whose,
                               std::strerror(error));
    }
}

/// Are they the same place? Two ways of naming a file, or two mounts of it, are.
bool is_same_place(const std::string& one, const std::string& other) {
    if (one == other) return true;
    struct stat first, second;
    return ::stat(one.c_str(), &first) == 0 && ::stat(other.c_str(), &second) == 0 &&
           first.st_dev == second.st_dev && first.st_ino == second.st_ino;
}

/// Finds the board of the daemon that this process would be a client of, which may be a service
/// account's.
int find_board_of_socket(const std::string& socket, BoardSnapshot& ret_snapshot,
                         std::string& ret_text) {
    struct stat status;
    const bool is_there = ::stat(socket.c_str(), &status) == 0;
    const uid_t uid = is_there ? status.st_uid : ::geteuid();
    std::string others;
    int unnamed = 0;
    for (const std::string& instance : find_instances(uid)) {
        BoardSnapshot snapshot;
        const int error = read_board(uid, instance, snapshot);
        if (!error && is_same_place(snapshot.socket, socket)) {
            ret_snapshot = std::move(snapshot);
            return 0;
        }
        if (!error && !snapshot.socket.empty()) others += "\n  " + snapshot.socket;
        if (instance.empty()) unnamed = error;
    }
    if (is_there && unnamed && unnamed != ENOENT && unnamed != ESRCH) {
        // The one without a name may be the one that is asked for.
        ret_text = explain_failure(unnamed, uid, {});
        return 1;
    }
    ret_text = fmt::format("no warmforkd of user {} serves {}", uid, socket);
    if (!others.empty())
        ret_text += fmt::format(
            ", which is where WARMFORK_SOCKET or XDG_RUNTIME_DIR has it. It serves:{}", others);
    return kNoDaemon;
}

/// Counts columns as fmt does when it pads, which knows of wide characters.
std::size_t width_of(const std::string& text) {
    constexpr std::size_t kWide = 1000;
    const std::size_t padding = fmt::formatted_size("{:<{}}", text, kWide) - text.size();
    return kWide - std::min(padding, kWide);
}

}  // namespace

int find_board(const BoardOptions& options, BoardSnapshot& ret_snapshot, std::string& ret_text) {
    const std::optional<uid_t> uid = uid_of(options.user);
    if (!uid) {
        ret_text = fmt::format("no such user: {}", options.user);
        return 1;
    }
    if (options.user.empty() && options.instance.empty())
        if (const std::string socket = service_address(); !socket.empty())
            return find_board_of_socket(socket, ret_snapshot, ret_text);
    const int error = read_board(*uid, options.instance, ret_snapshot);
    if (!error) return 0;
    ret_text = explain_failure(error, *uid, options.instance);
    return error == ENOENT || error == ESRCH ? kNoDaemon : 1;
}

std::string identity_text(const BoardSnapshot& snapshot) {
    return fmt::format("warmforkd {}, pid {}, up {}{}{}", snapshot.release, snapshot.pid,
                       span_text(snapshot.uptime), snapshot.socket.empty() ? "" : ", on ",
                       snapshot.socket);
}

const char* cold_name(std::size_t reason) {
    return warmfork_reason_name(static_cast<warmfork_reason>(reason));
}

std::uint64_t cold_total(const ColdCounts& counts) {
    std::uint64_t total = 0;
    for (std::uint64_t count : counts) total += count;
    return total;
}

std::string cold_text(const ColdCounts& counts) {
    std::vector<std::size_t> reasons;
    for (std::size_t reason = 0; reason < counts.size(); ++reason)
        if (counts[reason]) reasons.push_back(reason);
    std::stable_sort(reasons.begin(), reasons.end(), [&](std::size_t one, std::size_t other) {
        return counts[one] > counts[other];
    });
    std::string text;
    for (std::size_t reason : reasons)
        text += fmt::format("{}{} {}", text.empty() ? "" : ", ", cold_name(reason), counts[reason]);
    return text;
}

std::string duration_text(double microseconds) {
    if (microseconds < 999.5) return fmt::format("{:.0f} µs", microseconds);
    if (microseconds < 9'950) return fmt::format("{:.1f} ms", microseconds / 1e3);
    if (microseconds < 999'500) return fmt::format("{:.0f} ms", microseconds / 1e3);
    return fmt::format("{:.1f} s", microseconds / 1e6);
}

std::string percentile_text(const LatencyCounts& counts, double part) {
    return latency_total(counts) ? duration_text(latency_percentile(counts, part)) : "-";
}

std::string span_text(std::chrono::nanoseconds span) {
    const auto seconds = std::chrono::duration_cast<std::chrono::seconds>(span).count();
    if (seconds < 60) return fmt::format("{} s", seconds);
    if (seconds < 3600) return fmt::format("{} min {} s", seconds / 60, seconds % 60);
    if (seconds < 86400) return fmt::format("{} h {} min", seconds / 3600, seconds / 60 % 60);
    return fmt::format("{} d {} h", seconds / 86400, seconds / 3600 % 24);
}

std::string memory_text(std::uint64_t bytes) {
    return bytes ? fmt::format("{:.1f} MB", static_cast<double>(bytes) / 1048576) : "-";
}

std::string failing_text(const TemplateSnapshot& entry) {
    if (entry.state != TemplateState::failing) return {};
    const auto seconds = std::chrono::ceil<std::chrono::seconds>(entry.retry_in);
    return fmt::format("retry in {}: {}", span_text(seconds), entry.error);
}

std::string missing_text(const BoardSnapshot& snapshot) {
    std::string text;
    const auto add = [&](const char* what, std::uint64_t count) {
        if (count) text += fmt::format("{}{}: {}", text.empty() ? "" : ", ", what, count);
    };
    add("templates not shown", snapshot.templates_not_shown);
    add("clients not shown", snapshot.clients_not_shown);
    add("entries left out because they were being written", snapshot.unreadable);
    return text;
}

Table::Cell state_cell(TemplateState state) {
    fmt::text_style style;
    if (state == TemplateState::ready) style = fmt::fg(fmt::terminal_color::green);
    if (state == TemplateState::failing) style = fmt::fg(fmt::terminal_color::red);
    if (state == TemplateState::stale || state == TemplateState::preloading)
        style = fmt::fg(fmt::terminal_color::yellow);
    return {template_state_name(state), style};
}

Table::Table(const std::vector<std::string>& headings, bool is_coloured)
    : is_coloured_(is_coloured) {
    std::vector<Cell> row;
    for (const std::string& heading : headings) {
        is_word_.push_back(heading.starts_with('<'));
        row.emplace_back(heading.substr(is_word_.back()), fmt::emphasis::bold);
    }
    add(std::move(row));
}

std::vector<std::string> Table::lines() const {
    std::vector<std::size_t> widths(is_word_.size());
    for (const std::vector<Cell>& row : rows_)
        for (std::size_t i = 0; i < widths.size(); ++i)
            widths[i] = std::max(widths[i], width_of(row[i].text));
    std::vector<std::string> lines;
    for (const std::vector<Cell>& row : rows_) lines.push_back(line(row, widths));
    return lines;
}

std::string Table::line(const std::vector<Cell>& row,
                        const std::vector<std::size_t>& widths) const {
    std::string line;
    for (std::size_t i = 0; i < row.size(); ++i) {
        const bool is_last = i + 1 == row.size();
        if (is_last && row[i].text.empty()) break;
        if (i) line += "  ";
        const std::string padded = !is_word_[i] ? fmt::format("{:>{}}", row[i].text, widths[i])
                                   : is_last    ? row[i].text
                                                : fmt::format("{:<{}}", row[i].text, widths[i]);
        line += is_coloured_ ? fmt::format(row[i].style, "{}", padded) : padded;
    }
    return line;
}

}  // namespace warmfork::cli
