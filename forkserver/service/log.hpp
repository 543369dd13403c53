// What the service has to say: to the journal with fields, or to a terminal for a person.
#pragma once

#include <sys/types.h>
#include <syslog.h>

#include <source_location>
#include <string>
#include <string_view>

namespace warmfork::service {

/// The fields of an entry beside its text; what is empty or 0 is left out. In the journal:
/// WARMFORK_TEMPLATE, WARMFORK_CLIENT, WARMFORK_CHILD, WARMFORK_REASON.
struct LogFields {
    std::string_view template_name = {};
    pid_t client = 0;
    pid_t child = 0;
    std::string_view reason = {};
};

/// `priority`: LOG_ERR and the like. Goes to the journal where standard error does
/// (JOURNAL_STREAM), else to standard error, in colour if that is a terminal. Never fails.
void log(int priority, const LogFields& fields, std::string_view text,
         const std::source_location& where = std::source_location::current());

/// From now on messages go to the journal, or nowhere: for a process whose standard error is
/// nobody's.
void log_to_journal_only();

/// Entries of less importance are dropped; LOG_INFO at first.
void set_log_level(int priority);

}  // namespace warmfork::service
