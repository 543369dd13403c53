#define SD_JOURNAL_SUPPRESS_LOCATION
#include "service/log.hpp"

#include <fmt/format.h>
#include <sys/stat.h>
#include <systemd/sd-journal.h>
#include <unistd.h>

#include <array>
#include <cstdio>
#include <cstdlib>
#include <vector>

namespace warmfork::service {
namespace {

int level = LOG_INFO;
bool to_journal = false;

/// Is standard error a stream of the journal? sd_journal_stream_fd(3) says how that is to be told.
bool is_journal() {
    const char* stream = std::getenv("JOURNAL_STREAM");
    unsigned long device = 0, inode = 0;
    struct stat status;
    return stream && std::sscanf(stream, "%lu:%lu", &device, &inode) == 2 &&
           ::fstat(STDERR_FILENO, &status) == 0 && status.st_dev == device &&
           status.st_ino == inode;
}

void log_to_journal(int priority, const LogFields& fields, std::string_view text,
                    const std::source_location& where) {
    std::vector<std::string> entries{fmt::format("MESSAGE={}", text),
                                     fmt::format("PRIORITY={}", priority),
                                     fmt::format("CODE_FILE={}", where.file_name()),
                                     fmt::format("CODE_LINE={}", where.line()),
                                     fmt::format("CODE_FUNC={}", where.function_name()),
                                     "SYSLOG_IDENTIFIER=warmforkd"};
    if (!fields.template_name.empty())
        entries.push_back(fmt::format("WARMFORK_TEMPLATE={}", fields.template_name));
    if (fields.client) entries.push_back(fmt::format("WARMFORK_CLIENT={}", fields.client));
    if (fields.child) entries.push_back(fmt::format("WARMFORK_CHILD={}", fields.child));
    if (!fields.reason.empty()) entries.push_back(fmt::format("WARMFORK_REASON={}", fields.reason));
    std::vector<iovec> pieces;
    for (std::string& entry : entries) pieces.push_back({entry.data(), entry.size()});
    ::sd_journal_sendv(pieces.data(), static_cast<int>(pieces.size()));
}

void log_to_stream(int priority, const LogFields& fields, std::string_view text) {
    static constexpr std::array<std::string_view, 8> words{
        "emergency", "alert", "critical", "error", "warning", "notice", "info", "debug"};
    const bool has_colour = ::isatty(STDERR_FILENO) && !std::getenv("NO_COLOR");
    const std::string_view colour = !has_colour               ? ""
                                    : priority <= LOG_ERR     ? "\033[31m"
                                    : priority == LOG_WARNING ? "\033[33m"
                                    : priority >= LOG_DEBUG   ? "\033[2m"
                                                              : "";
    std::string line =
        fmt::format("warmforkd: {}{}: {}", colour, words[static_cast<std::size_t>(priority)], text);
    if (!fields.template_name.empty()) line += fmt::format(" template={}", fields.template_name);
    if (fields.client) line += fmt::format(" client={}", fields.client);
    if (fields.child) line += fmt::format(" child={}", fields.child);
    if (!fields.reason.empty()) line += fmt::format(" reason={}", fields.reason);
    line += colour.empty() ? "\n" : "\033[0m\n";
    // It is one write, so that no lines of others get in between.
    [[maybe_unused]] const auto written = ::write(STDERR_FILENO, line.data(), line.size());
}

}  // namespace

void log(int priority, const LogFields& fields, std::string_view text,
         const std::source_location& where) {
    if (priority > level) return;
    if (to_journal || is_journal())
        log_to_journal(priority, fields, text, where);
    else
        log_to_stream(priority, fields, text);
}

void log_to_journal_only() {
    to_journal = true;
}

void set_log_level(int priority) {
    level = priority;
}

}  // namespace warmfork::service
