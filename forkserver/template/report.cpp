#include "template/report.hpp"

#include <unistd.h>

#include <fstream>
#include <nlohmann/json.hpp>

#include "protocol/limits.hpp"
#include "template/gate.hpp"
#include "template/huge_pages.hpp"

namespace warmfork {
namespace {

using Json = nlohmann::json;

constexpr std::size_t kMaximumReportSize = kCompletionRingSize / 2;  // it must fit into the ring

std::size_t count_mappings() {
    std::ifstream maps("/proc/self/maps");
    std::size_t count = 0;
    for (std::string line; std::getline(maps, line);) ++count;
    return count;
}

std::size_t resident_kilobytes() {
    std::ifstream statm("/proc/self/statm");
    std::size_t total = 0, resident = 0;
    statm >> total >> resident;
    return resident * static_cast<std::size_t>(::sysconf(_SC_PAGESIZE)) / 1024;
}

}  // namespace

std::string make_report(std::span<const int> own, double fork_microseconds,
                        const Freshness& freshness, std::span<const SpareFact> spares,
                        const std::vector<std::string>& directory, Host& host) {
    Json threads = Json::array();
    for (const ThreadFact& fact : list_threads())
        threads.push_back({{"id", fact.id}, {"name", fact.name}});
    Json descriptors = Json::array();
    for (const DescriptorFact& fact : list_descriptors(own))
        descriptors.push_back(
            {{"number", fact.number}, {"target", fact.target}, {"hazardous", fact.hazardous}});
    Json parked = Json::array();
    for (const SpareFact& fact : spares)
        parked.push_back(
            {{"pid", fact.pid}, {"parked", fact.has_parked}, {"seconds", fact.seconds}});
    Json findings = Json::array();
    for (const Finding& finding : host.findings())
        findings.push_back({{"allow", finding.name}, {"text", finding.text}});
    Json report{{"pid", ::getpid()},
                {"spares", std::move(parked)},
                {"threads", std::move(threads)},
                {"descriptors", std::move(descriptors)},
                {"findings", std::move(findings)},
                {"directory", directory},
                {"mappings", count_mappings()},
                {"resident_kb", resident_kilobytes()},
                {"huge_kb", huge_kilobytes()},
                {"fork_us", fork_microseconds},
                {"freshness",
                 {{"files", freshness.file_count()},
                  {"directories", freshness.directory_count()},
                  {"not_watched_because", freshness.obstacle()},
                  {"changed", freshness.change()}}}};
    if (const std::string more = host.report(); !more.empty())
        report["host"] = Json::parse(more, nullptr, false);
    std::string text = report.dump(-1, ' ', false, Json::error_handler_t::replace);
    if (text.size() <= kMaximumReportSize) return text;
    for (const char* large : {"host", "findings", "directory", "descriptors", "threads", "spares"})
        report[large] = Json::array();
    report["left_out"] =
        "host, findings, directory, descriptors, threads and spares: the report would be too large";
    return report.dump();
}

}  // namespace warmfork
