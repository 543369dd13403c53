// The bodies of the service's messages. `read_*` returns nothing where what came is not one.
#pragma once

#include <sys/resource.h>
#include <unistd.h>

#include <array>
#include <optional>

#include "protocol/fields.hpp"
#include "protocol/service.hpp"

namespace warmfork {

/// What a client wants of a template: a parked child of an image that fits.
struct LeaseRequest {
    std::string name;  ///< of the template
    std::uint64_t flags = 0;
    std::uint64_t count = 1;
    std::vector<std::string> options;  ///< of the interpreter
    std::vector<std::string> environment;
    std::string sight;  ///< the text that `welcome` says where to find; older clients send none
};

inline std::vector<std::byte> write_body(const LeaseRequest& request) {
    return FieldWriter()
        .text(request.name)
        .number(request.flags)
        .number(request.count)
        .texts(request.options)
        .texts(request.environment)
        .text(request.sight)
        .bytes();
}
inline std::optional<LeaseRequest> read_lease_request(std::span<const std::byte> body) {
    FieldReader reader(body);
    LeaseRequest request;
    request.name = reader.text();
    request.flags = reader.number();
    request.count = reader.number();
    request.options = reader.texts();
    request.environment = reader.texts();
    if (reader.has_more()) request.sight = reader.text();
    if (!reader.is_whole() || request.count == 0 || request.count > kMostLeases) return {};
    return request;
}

/// The first word of a service.
struct Welcome {
    std::uint64_t pid = 0;
    /// Whoever may look at the service finds a text behind the link /proc/PID/fd/NUMBER, which a
    /// lease has to show. An older service, which asks for none, has -1.
    int sight = -1;
};

inline std::vector<std::byte> write_body(const Welcome& welcome) {
    return FieldWriter()
        .number(welcome.pid)
        .number(static_cast<std::uint64_t>(welcome.sight))
        .bytes();
}
inline Welcome read_welcome(std::span<const std::byte> body) {
    FieldReader reader(body);
    Welcome welcome;
    welcome.pid = reader.number();
    if (reader.has_more()) reader.number(welcome.sight);
    return welcome;
}
/// Returns what a lease has to show, or an empty text where this process may not look at the
/// service.
[[nodiscard]] inline std::string read_sight(const Welcome& welcome) {
    std::array<char, 128> text;
    const std::string link =
        "/proc/" + std::to_string(welcome.pid) + "/fd/" + std::to_string(welcome.sight);
    const ssize_t size = ::readlink(link.c_str(), text.data(), text.size());
    return {text.data(), size > 0 ? static_cast<std::size_t>(size) : 0};
}

/// What a client has to know of a template before it asks.
struct TemplateFacts {
    bool is_python = false;
    bool has_fixed_command = false;  ///< the client may only `run` it
    std::string program;             ///< full path of the interpreter or native program
};

inline std::vector<std::byte> write_body(const TemplateFacts& facts) {
    return FieldWriter()
        .number(facts.is_python)
        .number(facts.has_fixed_command)
        .text(facts.program)
        .bytes();
}
inline std::optional<TemplateFacts> read_template_facts(std::span<const std::byte> body) {
    FieldReader reader(body);
    TemplateFacts facts;
    reader.number(facts.is_python);
    reader.number(facts.has_fixed_command);
    facts.program = reader.text();
    if (!reader.is_whole()) return {};
    return facts;
}

/// What a client has to compare its requests with.
struct SharedImage {
    std::uint64_t pid = 0;  ///< of the template
    std::string directory;
    std::vector<std::string> options, environment;  ///< that it was started with
    bool reads_all_variables = false;
    std::vector<std::string> variables;   ///< that preloading has read
    std::vector<std::string> shadowable;  ///< "module=file"
    std::vector<std::uint64_t> descriptors;
    std::string owner_state;  ///< the service's, at the template's start: see owner_state.hpp
};

inline std::vector<std::byte> write_body(const SharedImage& image) {
    FieldWriter writer;
    writer.number(image.pid)
        .text(image.directory)
        .texts(image.options)
        .texts(image.environment)
        .number(image.reads_all_variables)
        .texts(image.variables)
        .texts(image.shadowable)
        .number(image.descriptors.size());
    for (std::uint64_t number : image.descriptors) writer.number(number);
    return writer.text(image.owner_state).bytes();
}
inline std::optional<SharedImage> read_shared_image(std::span<const std::byte> body) {
    FieldReader reader(body);
    SharedImage image;
    image.pid = reader.number();
    image.directory = reader.text();
    image.options = reader.texts();
    image.environment = reader.texts();
    reader.number(image.reads_all_variables);
    image.variables = reader.texts();
    image.shadowable = reader.texts();
    for (std::uint64_t left = reader.number(); left > 0 && reader.is_whole(); --left)
        image.descriptors.push_back(reader.number());
    image.owner_state = reader.text();
    if (!reader.is_whole()) return {};
    return image;
}

struct LeasedChild {
    std::uint64_t child = 0, pid = 0, image = 0;
};

inline std::vector<std::byte> write_body(const LeasedChild& leased) {
    return FieldWriter().number(leased.child).number(leased.pid).number(leased.image).bytes();
}
inline std::optional<LeasedChild> read_leased_child(std::span<const std::byte> body) {
    FieldReader reader(body);
    LeasedChild leased;
    leased.child = reader.number();
    leased.pid = reader.number();
    leased.image = reader.number();
    if (!reader.is_whole()) return {};
    return leased;
}

/// Why there is nothing to be had: a failure (stage, errno), a reason to start cold, or both.
/// Whoever insists on warm gets the failure.
struct Refusal {
    std::uint64_t stage = 0, error_number = 0, reason = 0;
    std::string text;
};

inline std::vector<std::byte> write_body(const Refusal& refusal) {
    return FieldWriter()
        .number(refusal.stage)
        .number(refusal.error_number)
        .number(refusal.reason)
        .text(refusal.text)
        .bytes();
}
inline std::optional<Refusal> read_refusal(std::span<const std::byte> body) {
    FieldReader reader(body);
    Refusal refusal;
    refusal.stage = reader.number();
    refusal.error_number = reader.number();
    refusal.reason = reader.number();
    refusal.text = reader.text();
    if (!reader.is_whole()) return {};
    return refusal;
}

/// What stands behind the name in a `manage` whose verb is "link": the command of Python's that it
/// comes to. Older links leave it out, and so does one that stands for something else.
struct LinkedCommand {
    std::string interpreter;             ///< full path, or one relative to the directory
    std::string directory;               ///< the caller's
    std::vector<std::string> arguments;  ///< of the interpreter; the last ones may be missing
};

inline std::vector<std::byte> write_body(const LinkedCommand& command) {
    return FieldWriter()
        .text(command.interpreter)
        .text(command.directory)
        .texts(command.arguments)
        .bytes();
}
inline std::optional<LinkedCommand> read_linked_command(FieldReader& reader) {
    LinkedCommand command;
    command.interpreter = reader.text();
    command.directory = reader.text();
    command.arguments = reader.texts();
    if (!reader.is_whole()) return {};
    return command;
}

struct ExitReport {
    int status = 0;  ///< as of waitpid
    rusage usage{};
};

inline std::vector<std::byte> write_body(const ExitReport& report) {
    const std::string_view usage(reinterpret_cast<const char*>(&report.usage), sizeof report.usage);
    return FieldWriter().number(static_cast<std::uint32_t>(report.status)).text(usage).bytes();
}
inline std::optional<ExitReport> read_exit_report(std::span<const std::byte> body) {
    FieldReader reader(body);
    ExitReport report;
    reader.number(report.status);
    const std::string usage = reader.text();
    if (!reader.is_whole() || usage.size() != sizeof report.usage) return {};
    std::memcpy(&report.usage, usage.data(), sizeof report.usage);
    return report;
}

/// What a client reports of a spawn when it next has something to say: a hand-off that took
/// `microseconds`, or a cold start for `reason`.
struct UseReport {
    std::string name;
    std::uint64_t microseconds = 0, reason = 0;
};

inline std::vector<std::byte> write_body(const UseReport& report) {
    return FieldWriter()
        .text(report.name)
        .number(report.microseconds)
        .number(report.reason)
        .bytes();
}
inline std::optional<UseReport> read_use_report(std::span<const std::byte> body) {
    FieldReader reader(body);
    UseReport report;
    report.name = reader.text();
    report.microseconds = reader.number();
    report.reason = reader.number();
    if (!reader.is_whole()) return {};
    return report;
}

}  // namespace warmfork
