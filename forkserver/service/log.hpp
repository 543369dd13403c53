// What the service has to say: to the journal with fields, or to a terminal for a person.
#pragma once

#include <sys/types.h>
#include <syslog.h>

#include <source_location>
#include <string>
#include <string_view>

namespace warmfork::service {

/// The fields of an entry beside its text; what is empty or 0 is left out. The journal has them as
/// WARMFORK_TEMPLATE, WARMFORK_CLIENT, WARMFORK_CHILD, WARMFORK_REASON.
struct LogFields {
    std::string_view template_name = {};
    pid_t client = 0;
    pid_t child = 0;
    std::string_view reason = {};
};

/// Logs a text; `priority` is LOG_ERR and the like. It goes to the journal where standard error
/// does (JOURNAL_STREAM), else to standard error, in colour if that is a terminal. Never fails.
void log(int priority, const LogFields& fields, std::string_view text,
         const std::source_location& where = std::source_location::current());

/// Sends messages to the journal from now on, or nowhere: for a process whose standard error is
/// nobody's.
void log_to_journal_only();

/// Drops entries of less importance from now on; at first it is LOG_INFO.
void set_log_level(int priority);

}  // namespace warmfork::service
