#include <fmt/color.h>
#include <fmt/format.h>
#include <unistd.h>

#include <cstdlib>
#include <nlohmann/json.hpp>

#include "cli/child_cost.hpp"
#include "cli/commands.hpp"
#include "warmfork.hpp"

namespace warmfork::cli {
namespace {

using Json = nlohmann::json;

constexpr int kParkPatience = 5000;  // milliseconds

fmt::text_style heading() {
    return ::isatty(STDOUT_FILENO) ? fmt::emphasis::bold : fmt::text_style();
}

void print_imports(const Json& host) {
    if (!host.contains("imports") || host["imports"].empty()) return;
    fmt::print(heading(), "\nimports\n");
    double sum = 0;
    for (const Json& import : host["imports"]) {
        const double seconds = import["seconds"];
        sum += seconds;
        fmt::print("  {:>8.1f} ms  {}\n", seconds * 1000, import["module"].get<std::string>());
    }
    fmt::print("  {:>8.1f} ms  altogether, which each cold start pays\n", sum * 1000);
}

void print_failed(const Json& host) {
    if (!host.contains("failed")) return;
    for (const Json& failed : host["failed"])
        fmt::print("  left out: {}: {}\n", failed["module"].get<std::string>(),
                   failed["reason"].get<std::string>());
}

void print_learned(const Json& host) {
    if (!host.contains("learned")) return;
    const Json& learned = host["learned"];
    fmt::print(heading(), "\nlearned from {} children\n", learned["children"].get<int>());
    double saved = 0;
    for (const Json& module : learned["modules"]) {
        const double seconds = module["seconds"];
        saved += seconds;
        fmt::print("  {:>8.1f} ms  {}\n", seconds * 1000, module["module"].get<std::string>());
    }
    fmt::print("  {:>8.1f} ms  that each child starts earlier\n", saved * 1000);
    for (const Json& refused : learned["refused"])
        fmt::print("  not preloadable: {}: {}\n", refused["module"].get<std::string>(),
                   refused["reason"].get<std::string>());
    if (const std::string error = learned["error"]; !error.empty())
        fmt::print("  nothing can be remembered: {}\n", error);
    fmt::print("  to forget it: rm -r {}\n", learned["folder"].get<std::string>());
}

void print_findings(const Json& report) {
    if (report["findings"].empty()) return;
    fmt::print(heading(), "\nnot as in a cold start, but allowed\n");
    for (const Json& finding : report["findings"])
        fmt::print("  {}: {}\n", finding["allow"].get<std::string>(),
                   finding["text"].get<std::string>());
}

void print_directory(const Json& report) {
    if (!report.contains("directory") || report["directory"].empty()) return;  // of an older one
    fmt::print(heading(),
               "\nas in the template's directory; another child is cold unless allowed\n");
    for (const Json& entry : report["directory"]) fmt::print("  {}\n", entry.get<std::string>());
}

void print_asked(const Json& host) {
    if (!host.contains("asked") || host["asked"].empty()) return;
    fmt::print(heading(), "\nasked for, and kept nowhere that can be seen\n");
    for (const Json& asker : host["asked"]) {
        const char* kind = asker.contains("module") ? "module" : "library";
        const auto kinds = asker["for"].get<std::vector<std::string>>();
        fmt::print("  {} {}: {}\n", kind, asker[kind].get<std::string>(), fmt::join(kinds, ", "));
    }
}

void print_cost(const char* kind, const Json& cost) {
    fmt::print("  {}  {:>6.1f} ms of the processors, {} page faults\n", kind,
               cost["seconds"].get<double>() * 1000, cost["page_faults"].get<long>());
}

void print_costs(const Json& report) {
    if (!report.contains("child")) return;
    const Json& child = report["child"];
    fmt::print(heading(), "\na child that does nothing\n");
    if (child.contains("error"))
        return fmt::print("  not measured: {}\n", child["error"].get<std::string>());
    print_cost("warm", child["warm"]);
    print_cost("cold", child["cold"]);
    const double warm = child["warm"]["seconds"], fork = report["fork_us"].get<double>() * 1e-6;
    if (warm + fork > child["cold"]["seconds"].get<double>())
        fmt::print(
            "  With its fork the warm one is the dearer one: a program that uses little of what "
            "is\n"
            "  preloaded had better be cold, or have a template that preloads less.\n");
}

Json in_json(const ChildCost& cost) {
    return {{"seconds", cost.seconds}, {"page_faults", cost.page_faults}};
}

/// Returns what children cost, or what stands in the way of measuring it.
Json costs_of_children(Template& of, const TemplateOptions& options) try {
    std::vector<std::string> interpreter{options.python};
    interpreter.insert(interpreter.end(), options.options.begin(), options.options.end());
    const ChildCosts costs = measure_children(of, interpreter);
    return {{"warm", in_json(costs.warm)}, {"cold", in_json(costs.cold)}};
} catch (const Error& error) {
    return {{"error", error.what()}};
}

void print_report(const Json& report) {
    fmt::print(heading(), "template {}: safe to fork\n", report["pid"].get<int>());
    fmt::print(
        "  resident memory  {:.1f} MB\n  mappings         {}\n  last fork        {:.0f} µs\n",
        report["resident_kb"].get<double>() / 1024, report["mappings"].get<int>(),
        report["fork_us"].get<double>());
    const Json& freshness = report["freshness"];
    fmt::print(
        "  changes          {} files in {} directories are {}\n", freshness["files"].get<int>(),
        freshness["directories"].get<int>(),
        freshness["not_watched_because"].get<std::string>().empty()
            ? "watched"
            : "compared at each fork: " + freshness["not_watched_because"].get<std::string>());
    for (const Json& spare : report["spares"])
        if (!spare["parked"].get<bool>())
            fmt::print(
                "  not prepared     child {}, after {:.1f} s: a fork handler takes its time\n",
                spare["pid"].get<int>(), spare["seconds"].get<double>());
    print_costs(report);
    fmt::print(heading(), "\nthreads\n");
    for (const Json& thread : report["threads"])
        fmt::print("  {:>8}  {}\n", thread["id"].get<int>(), thread["name"].get<std::string>());
    if (!report["descriptors"].empty()) fmt::print(heading(), "\ndescriptors left by preloading\n");
    for (const Json& descriptor : report["descriptors"])
        fmt::print("  {:>8}  {}{}\n", descriptor["number"].get<int>(),
                   descriptor["target"].get<std::string>(),
                   descriptor["hazardous"].get<bool>() ? "  (allowed)" : "");
    print_findings(report);
    print_directory(report);
    if (report.contains("host") && report["host"].is_object()) {
        print_imports(report["host"]);
        print_failed(report["host"]);
        print_asked(report["host"]);
        print_learned(report["host"]);
    }
}

}  // namespace

int examine(const DoctorOptions& options) {
    try {
        TemplateOptions of = options.of;
        if (of.python.empty()) of.python = "python3";
        Template python_template = open_template(of, 1);
        wait_with_progress(python_template);
        // It waits for a fork whose time can be told. A child that does not park is reported.
        warmfork_failure failure{};
        const int parked =
            warmfork_template_wait_parked(python_template.handle(), 1, kParkPatience, &failure);
        if (parked < 0 && parked != -ETIMEDOUT) throw Error(failure);
        char* text = nullptr;
        if (warmfork_template_report(python_template.handle(), &text, &failure))
            throw Error(failure);
        Json report = Json::parse(text);
        std::free(text);
        // A template that learns would take them for runs of the program.
        if (!of.learn) report["child"] = costs_of_children(python_template, of);
        if (options.json)
            fmt::print("{}\n", report.dump(1));
        else
            print_report(report);
        return 0;
    } catch (const Error& error) {
        if (options.json) {
            const Json report{{"stage", warmfork_stage_name(error.stage())},
                              {"errno", error.error_number()},
                              {"error", error.what()}};
            fmt::print("{}\n", report.dump(1));
        } else {
            fmt::print(stderr, "warmfork: {}\n", error.what());
        }
        return 1;
    }
}

}  // namespace warmfork::cli
