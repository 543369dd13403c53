#include "owner/request.hpp"

#include <fcntl.h>
#include <sys/resource.h>
#include <unistd.h>

#include <algorithm>
#include <cstring>

namespace warmfork {
namespace {

std::vector<const char*> collect(const char* const* strings) {
    std::vector<const char*> collected;
    for (; strings && *strings; ++strings) collected.push_back(*strings);
    return collected;
}

std::string_view name_of(const char* variable) {
    const std::string_view text(variable);
    return text.substr(0, text.find('='));
}

std::span<char* const> as_argument_span(const std::vector<const char*>& strings) {
    return {const_cast<char* const*>(strings.data()), strings.size()};
}

}  // namespace

Outcome Request::read(const warmfork_request& request) {
    // A caller that was built with an older header has a shorter struct: the rest keeps its
    // defaults.
    warmfork_request_init(&request_);
    std::memcpy(&request_, &request, std::min(request.size, sizeof request_));
    arguments_ = collect(request_.arguments);
    if (arguments_.empty())
        return make_failure(Stage::record, EINVAL, "a request without arguments");
    make_environment();
    make_descriptor_map();

    const auto flag = [&](std::uint32_t asked, std::uint32_t told) {
        if (request_.flags & asked) contents_.header.flags |= told;
    };
    flag(WARMFORK_NEW_SESSION, kRecordNewSession);
    flag(WARMFORK_TERMINAL, kRecordNewSession | kRecordTerminal);
    flag(WARMFORK_PROCESS_GROUP, kRecordProcessGroup);
    flag(WARMFORK_UMASK, kRecordUmask);
    flag(WARMFORK_NICE, kRecordNice);
    contents_.header.lifetime =
        request_.flags & WARMFORK_DETACHED ? Lifetime::detached : Lifetime::owner;
    contents_.header.process_group = request_.process_group;
    contents_.header.file_mode_mask = request_.file_mode_mask;
    contents_.header.nice = request_.nice;
    contents_.header.signal_mask = request_.signal_mask;
    if (request_.flags & WARMFORK_SIGNALS_IGNORED)
        contents_.header.signals_ignored = request_.signals_ignored;
    if (!(request_.flags & WARMFORK_SIGNALS_DEFAULT)) request_.signals_default = 0;
    if (request_.directory) contents_.directory = request_.directory;
    if (request_.executable) contents_.executable = request_.executable;
    contents_.arguments = arguments_;
    contents_.environment = environment_;
    if (request_.affinity) {
        const auto* bytes = static_cast<const std::byte*>(request_.affinity);
        contents_.affinity.assign(bytes, bytes + request_.affinity_size);
        contents_.affinity.resize((contents_.affinity.size() + 7) & ~std::size_t{7});
    }
    for (std::size_t i = 0; i < request_.limit_count; ++i)
        contents_.limits.push_back(
            {request_.limits[i].resource, 0, request_.limits[i].soft, request_.limits[i].hard});
    contents_.payload = {static_cast<const std::byte*>(request_.payload), request_.payload_size};
    return {};
}

Request Request::with_command(const std::string& executed,
                              std::span<const std::string> arguments) const {
    Request request(*this);
    request.arguments_.clear();
    for (const std::string& argument : arguments) request.arguments_.push_back(argument.c_str());
    request.request_.executable = nullptr;
    request.contents_.executable = executed;
    request.contents_.arguments = request.arguments_;
    request.contents_.environment = request.environment_;
    return request;
}

void Request::make_environment() {
    environment_ = collect(request_.environment ? request_.environment : environ);
    for (const char* change : collect(request_.environment_changes)) {
        const std::string_view name = name_of(change);
        std::erase_if(environment_,
                      [&](const char* variable) { return name_of(variable) == name; });
        if (std::strchr(change, '=')) environment_.push_back(change);
    }
}

void Request::make_descriptor_map() {
    std::vector<warmfork_descriptor> map(request_.descriptors,
                                         request_.descriptors + request_.descriptor_count);
    for (int standard : {0, 1, 2}) {
        const bool is_named = std::any_of(
            map.begin(), map.end(), [&](const auto& entry) { return entry.target == standard; });
        // It must be open. If it is close-on-exec, a file of the owner's own has taken the number.
        if (!is_named && ::fcntl(standard, F_GETFD) == 0) map.push_back({standard, standard});
    }
    for (const warmfork_descriptor& entry : map) {
        if (entry.source < 0) continue;
        sources_.push_back(entry.source);
        contents_.descriptor_targets.push_back(entry.target);
    }
}

std::string Request::directory() const {
    return contents_.directory.empty() ? "." : std::string(contents_.directory);
}

std::span<char* const> Request::arguments() const {
    return as_argument_span(arguments_);
}

std::span<char* const> Request::environment() const {
    return as_argument_span(environment_);
}

int Request::source_of(int target) const {
    for (std::size_t i = 0; i < sources_.size(); ++i)
        if (contents_.descriptor_targets[i] == target) return sources_[i];
    return -1;
}

bool Request::has_exec_limits() const {
    return std::any_of(contents_.limits.begin(), contents_.limits.end(), [](const auto& limit) {
        return limit.resource == RLIMIT_STACK || limit.resource == RLIMIT_AS ||
               limit.resource == RLIMIT_DATA;
    });
}

}  // namespace warmfork
