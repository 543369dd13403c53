#include <fmt/color.h>
#include <fmt/format.h>
#include <unistd.h>

#include <cerrno>
#include <cstdio>
#include <cstring>
#include <nlohmann/json.hpp>

#include "cli/board_view.hpp"
#include "cli/commands.hpp"
#include "cli/metrics.hpp"

namespace warmfork::cli {
namespace {

using Json = nlohmann::json;

Json known(std::uint64_t number) {
    return number ? Json(number) : Json(nullptr);
}

Json cold_json(const ColdCounts& counts) {
    Json reasons = Json::object();
    for (std::size_t reason = 0; reason < counts.size(); ++reason)
        if (counts[reason])
            reasons[cold_name(reason)] =
                reasons.value(cold_name(reason), std::uint64_t{0}) + counts[reason];
    return {{"total", cold_total(counts)}, {"reasons", reasons}};
}

Json latency_json(const TemplateSnapshot& entry) {
    Json latency{{"count", latency_total(entry.latency)}, {"sum", entry.latency_sum_us}};
    for (const auto& [name, part] : {std::pair{"p50", 0.5}, {"p90", 0.9}, {"p99", 0.99}})
        latency[name] = latency_total(entry.latency) ? Json(latency_percentile(entry.latency, part))
                                                     : Json(nullptr);
    return latency;
}

Json template_json(const TemplateSnapshot& entry) {
    Json described{{"name", entry.name},
                   {"extends", entry.base.empty() ? Json(nullptr) : Json(entry.base)},
                   {"state", template_state_name(entry.state)},
                   {"pid", known(static_cast<std::uint64_t>(entry.pid))},
                   {"images", entry.images},
                   {"spares", entry.spares},
                   {"leased", entry.leased},
                   {"children", entry.children},
                   {"spawns", latency_total(entry.latency)},
                   {"cold", cold_json(entry.cold)},
                   {"starts", entry.starts},
                   {"preload_ms", known(static_cast<std::uint64_t>(entry.preload.count()))},
                   {"latency_us", latency_json(entry)},
                   {"resident_kb", known(entry.resident_kb)},
                   {"proportional_kb", known(entry.proportional_kb)},
                   {"retry_ms", nullptr},
                   {"error", nullptr}};
    if (entry.state == TemplateState::failing) described["retry_ms"] = entry.retry_in.count();
    if (!entry.error.empty()) described["error"] = entry.error;
    return described;
}

Json client_json(const ClientSnapshot& client) {
    return {{"pid", client.pid},
            {"uid", client.uid},
            {"command", client.command},
            {"children", client.children},
            {"leases", client.leases},
            {"spawns", client.spawns},
            {"memory_bytes", known(client.memory)},
            {"cpu_us", known(client.cpu_us)}};
}

Json to_json(const BoardSnapshot& snapshot) {
    Json described{{"running", true},
                   {"pid", snapshot.pid},
                   {"socket", snapshot.socket.empty() ? Json(nullptr) : Json(snapshot.socket)},
                   {"version", snapshot.release},
                   {"uptime_seconds", std::chrono::duration<double>(snapshot.uptime).count()},
                   {"clients_connected", snapshot.clients_connected},
                   {"children", snapshot.children},
                   {"spawns", snapshot.spawns},
                   {"cold", cold_json(snapshot.cold)},
                   {"templates", Json::array()},
                   {"clients", Json::array()},
                   {"not_shown",
                    {{"templates", snapshot.templates_not_shown},
                     {"clients", snapshot.clients_not_shown},
                     {"being_written", snapshot.unreadable}}}};
    for (const TemplateSnapshot& entry : snapshot.templates)
        described["templates"].push_back(template_json(entry));
    for (const ClientSnapshot& client : snapshot.clients)
        described["clients"].push_back(client_json(client));
    return described;
}

void print_templates(const BoardSnapshot& snapshot, bool is_coloured) {
    if (snapshot.templates.empty()) return;
    Table table({"<TEMPLATE", "<STATE", "PID", "IMAGES", "SPARES", "LEASED", "CHILDREN", "SPAWNS",
                 "COLD", "STARTS", "PRELOAD", "P50", "P90", "P99", "RSS", "PSS"},
                is_coloured);
    for (const TemplateSnapshot& entry : snapshot.templates)
        table.add({entry.name, state_cell(entry.state), entry.pid ? std::to_string(entry.pid) : "-",
                   entry.images, entry.spares, entry.leased, entry.children,
                   latency_total(entry.latency), cold_total(entry.cold), entry.starts,
                   entry.preload.count()
                       ? duration_text(1000.0 * static_cast<double>(entry.preload.count()))
                       : "-",
                   percentile_text(entry.latency, 0.5), percentile_text(entry.latency, 0.9),
                   percentile_text(entry.latency, 0.99), memory_text(entry.resident_kb * 1024),
                   memory_text(entry.proportional_kb * 1024)});
    const std::vector<std::string> lines = table.lines();
    fmt::print("\n{}\n", lines.front());
    for (std::size_t i = 0; i < snapshot.templates.size(); ++i) {
        const TemplateSnapshot& entry = snapshot.templates[i];
        fmt::print("{}\n", lines[i + 1]);
        if (!entry.base.empty()) fmt::print("  extends: {}\n", entry.base);
        if (cold_total(entry.cold)) fmt::print("  cold: {}\n", cold_text(entry.cold));
        if (entry.state == TemplateState::failing) fmt::print("  {}\n", failing_text(entry));
    }
}

void print_clients(const BoardSnapshot& snapshot, bool is_coloured) {
    if (snapshot.clients.empty()) return;
    Table table({"CLIENT", "UID", "<COMMAND", "CHILDREN", "LEASES", "SPAWNS", "MEMORY", "CPU"},
                is_coloured);
    for (const ClientSnapshot& client : snapshot.clients)
        table.add({static_cast<std::uint64_t>(client.pid), std::uint64_t{client.uid},
                   client.command, client.children, client.leases, client.spawns,
                   memory_text(client.memory),
                   client.cpu_us ? fmt::format("{:.1f} s", static_cast<double>(client.cpu_us) / 1e6)
                                 : "-"});
    fmt::print("\n");
    for (const std::string& line : table.lines()) fmt::print("{}\n", line);
}

void print(const BoardSnapshot& snapshot) {
    const bool is_coloured = ::isatty(STDOUT_FILENO);
    fmt::print("{}\n", identity_text(snapshot));
    fmt::print("clients {}, children {}, warm spawns {}, cold {}{}{}\n", snapshot.clients_connected,
               snapshot.children, snapshot.spawns, cold_total(snapshot.cold),
               cold_total(snapshot.cold) ? ": " : "", cold_text(snapshot.cold));
    print_templates(snapshot, is_coloured);
    print_clients(snapshot, is_coloured);
    if (const std::string missing = missing_text(snapshot); !missing.empty())
        fmt::print("\n{}\n", missing);
}

int print_status(const StatusOptions& options) {
    BoardSnapshot snapshot;
    std::string text;
    if (const int status = find_board(options.of, snapshot, text)) {
        if (options.json)
            fmt::print("{}\n", Json{{"running", status == kNoDaemon ? Json(false) : Json(nullptr)},
                                    {"error", text}}
                                   .dump(1, ' ', false, Json::error_handler_t::replace));
        else
            fmt::print(stderr, "warmfork: {}\n", text);
        if (options.metrics && status == kNoDaemon) fmt::print("{}", metrics_of_nothing());
        return status;
    }
    if (options.json)
        fmt::print("{}\n", to_json(snapshot).dump(1));
    else if (options.metrics)
        fmt::print("{}", metrics_of(snapshot));
    else
        print(snapshot);
    return 0;
}

}  // namespace

int show_status(const StatusOptions& options) {
    const int status = print_status(options);
    if (std::fflush(stdout) == 0) return status;
    fmt::print(stderr, "warmfork: cannot write the status: {}\n", std::strerror(errno));
    return 1;
}

}  // namespace warmfork::cli
