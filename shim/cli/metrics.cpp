#include "cli/metrics.hpp"

#include <fmt/format.h>

#include <functional>
#include <iterator>

#include "cli/board_view.hpp"
#include "warmfork.h"

namespace warmfork::cli {
namespace {

/// A histogram's bounds double from 16 µs to 17 s. Each is also a bound of the board's buckets.
constexpr unsigned kFirstBound = 4;
constexpr unsigned kLastBound = 24;

std::string quoted(const std::string& label) {
    std::string text = "\"";
    for (char character : label) {
        if (character == '\n') {
            text += "\\n";
            continue;
        }
        if (character == '\\' || character == '"') text += '\\';
        text += character;
    }
    return text + '"';
}

class Metrics {
  public:
    explicit Metrics(const std::vector<TemplateSnapshot>& templates) : templates_(templates) {}

    void begin(const char* name, const char* type, const char* help) {
        add("# HELP {} {}\n# TYPE {} {}\n", name, help, name, type);
    }

    template <typename Number>
    void one(const char* name, const char* type, const char* help, Number value) {
        begin(name, type, help);
        add("{} {}\n", name, value);
    }

    /// Adds a number of each template.
    template <typename Of>
    void each(const char* name, const char* type, const char* help, Of of) {
        begin(name, type, help);
        for (const TemplateSnapshot& entry : templates_)
            add("{}{{template={}}} {}\n", name, quoted(entry.name), std::invoke(of, entry));
    }

    template <typename... Values>
    void add(fmt::format_string<Values...> format, Values&&... values) {
        fmt::format_to(std::back_inserter(text_), format, std::forward<Values>(values)...);
    }

    std::string take() { return std::move(text_); }

  private:
    const std::vector<TemplateSnapshot>& templates_;
    std::string text_;
};

/// Adds all reasons there are, so that a rate is right from the first one on.
void add_cold(Metrics& metrics, const char* name, const std::string& labels,
              const ColdCounts& counts) {
    for (std::size_t reason = 1; reason < WARMFORK_REASON_COUNT; ++reason)
        metrics.add("{}{{{}reason={}}} {}\n", name, labels, quoted(cold_name(reason)),
                    counts[reason]);
}

void add_states(Metrics& metrics, const TemplateSnapshot& entry) {
    for (std::uint64_t state = 1; state < kTemplateStates; ++state)
        metrics.add("warmfork_template_state{{template={},state={}}} {}\n", quoted(entry.name),
                    quoted(template_state_name(static_cast<TemplateState>(state))),
                    static_cast<std::uint64_t>(entry.state) == state ? 1 : 0);
}

void add_latency(Metrics& metrics, const TemplateSnapshot& entry) {
    constexpr const char* kName = "warmfork_template_spawn_latency_seconds";
    const std::string name = quoted(entry.name);
    std::uint64_t below = 0;
    std::size_t bucket = 0;
    for (unsigned bound = kFirstBound; bound <= kLastBound; ++bound) {
        const std::uint64_t microseconds = std::uint64_t{1} << bound;
        for (; latency_floor(bucket) < microseconds; ++bucket) below += entry.latency[bucket];
        metrics.add("{}_bucket{{template={},le=\"{}\"}} {}\n", kName, name,
                    static_cast<double>(microseconds) / 1e6, below);
    }
    const std::uint64_t all = latency_total(entry.latency);
    metrics.add("{}_bucket{{template={},le=\"+Inf\"}} {}\n", kName, name, all);
    metrics.add("{}_sum{{template={}}} {}\n", kName, name,
                static_cast<double>(entry.latency_sum_us) / 1e6);
    metrics.add("{}_count{{template={}}} {}\n", kName, name, all);
}

void add_daemon(Metrics& metrics, const BoardSnapshot& snapshot) {
    metrics.one("warmfork_up", "gauge", "Is a daemon running.", 1);
    metrics.begin("warmfork_build_info", "gauge", "The version of the daemon; always 1.");
    metrics.add("warmfork_build_info{{version={}}} 1\n", quoted(snapshot.release));
    metrics.one("warmfork_uptime_seconds", "gauge", "Time since the service started.",
                std::chrono::duration<double>(snapshot.uptime).count());
    metrics.one("warmfork_clients", "gauge", "Clients connected.", snapshot.clients_connected);
    metrics.one("warmfork_children", "gauge", "Children alive.", snapshot.children);
    metrics.one("warmfork_spawns_total", "counter",
                "Warm spawns, also of templates that have no metrics of their own.",
                snapshot.spawns);
    metrics.begin("warmfork_cold_spawns_total", "counter",
                  "Spawns served cold, also of templates that have no metrics of their own.");
    add_cold(metrics, "warmfork_cold_spawns_total", "", snapshot.cold);
    metrics.one("warmfork_templates_not_shown", "gauge",
                "Templates that have no metrics of their own.", snapshot.templates_not_shown);
}

}  // namespace

std::string metrics_of(const BoardSnapshot& snapshot) {
    Metrics metrics(snapshot.templates);
    add_daemon(metrics, snapshot);
    metrics.begin("warmfork_template_state", "gauge", "1 for the state that the template is in.");
    for (const TemplateSnapshot& entry : snapshot.templates) add_states(metrics, entry);
    metrics.each("warmfork_template_images", "gauge", "Images: the first, and its variants.",
                 &TemplateSnapshot::images);
    metrics.each("warmfork_template_spares", "gauge", "Spares parked and not leased.",
                 &TemplateSnapshot::spares);
    metrics.each("warmfork_template_leased_spares", "gauge", "Spares that clients hold.",
                 &TemplateSnapshot::leased);
    metrics.each("warmfork_template_children", "gauge", "Children alive.",
                 &TemplateSnapshot::children);
    metrics.each("warmfork_template_starts_total", "counter", "Images started.",
                 &TemplateSnapshot::starts);
    metrics.each("warmfork_template_preload_seconds", "gauge",
                 "How long the last image took to preload.", [](const TemplateSnapshot& entry) {
                     return std::chrono::duration<double>(entry.preload).count();
                 });
    metrics.each("warmfork_template_resident_bytes", "gauge",
                 "Resident memory of images and spares; 0: not known.",
                 [](const TemplateSnapshot& entry) { return entry.resident_kb * 1024; });
    metrics.each("warmfork_template_proportional_bytes", "gauge",
                 "Proportional memory (PSS) of images and spares; 0: not known.",
                 [](const TemplateSnapshot& entry) { return entry.proportional_kb * 1024; });
    metrics.begin("warmfork_template_cold_spawns_total", "counter", "Spawns served cold.");
    for (const TemplateSnapshot& entry : snapshot.templates)
        add_cold(metrics, "warmfork_template_cold_spawns_total",
                 "template=" + quoted(entry.name) + ",", entry.cold);
    metrics.begin("warmfork_template_spawn_latency_seconds", "histogram",
                  "Warm spawns: from the request until the child has started.");
    for (const TemplateSnapshot& entry : snapshot.templates) add_latency(metrics, entry);
    return metrics.take();
}

std::string metrics_of_nothing() {
    Metrics metrics({});
    metrics.one("warmfork_up", "gauge", "Is a daemon running.", 0);
    return metrics.take();
}

}  // namespace warmfork::cli
