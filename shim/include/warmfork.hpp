// C++ on top of warmfork.h: owners for its handles, exceptions for its failures.
#pragma once

#include <sys/wait.h>

#include <cerrno>
#include <cstdint>
#include <cstdlib>
#include <cstring>
#include <span>
#include <stdexcept>
#include <string>
#include <utility>
#include <vector>

#include "warmfork.h"

namespace warmfork {

/// A spawn or a template failed: where, with which errno, and a text for people.
class Error : public std::runtime_error {
  public:
    explicit Error(const warmfork_failure& failure)
        : std::runtime_error(failure.text),
          stage_(failure.stage),
          error_number_(failure.error_number) {}
    warmfork_stage stage() const { return stage_; }
    int error_number() const { return error_number_; }

  private:
    warmfork_stage stage_;
    int error_number_;
};

namespace detail {
/// Returns strings as the null-terminated array that C wants. It is good as long as the strings
/// live.
inline std::vector<const char*> pointers(const std::vector<std::string>& strings) {
    std::vector<const char*> result;
    for (const std::string& string : strings) result.push_back(string.c_str());
    result.push_back(nullptr);
    return result;
}
std::vector<const char*> pointers(const std::vector<std::string>&&) = delete;  // they would dangle
}  // namespace detail

/// A spawned child. Destroying the handle leaves the process alone.
class Process {
  public:
    explicit Process(warmfork_process* handle) : handle_(handle) {}
    Process(Process&& other) noexcept : handle_(std::exchange(other.handle_, nullptr)) {}
    Process& operator=(Process&& other) noexcept {
        std::swap(handle_, other.handle_);
        return *this;
    }
    ~Process() { warmfork_process_free(handle_); }

    pid_t pid() const { return warmfork_process_pid(handle_); }
    warmfork_backend backend() const { return warmfork_process_backend(handle_); }
    const char* backend_name() const { return warmfork_backend_name(backend()); }
    warmfork_reason reason() const { return warmfork_process_reason(handle_, nullptr); }
    /// Returns why it was cold, as a sentence; empty if it is warm.
    std::string reason_text() const {
        const char* text;
        warmfork_process_reason(handle_, &text);
        return text;
    }
    int pidfd() { return warmfork_process_pidfd(handle_); }
    void signal(int number) { check(warmfork_process_signal(handle_, number), "cannot signal"); }

    /// Waits for the end. Returns the status as of waitpid. Throws where somebody else has taken
    /// it.
    int wait(rusage* usage = nullptr) {
        int status = 0;
        check(warmfork_process_wait(handle_, 0, &status, usage), "cannot wait for the child");
        return status;
    }
    /// Returns true, with the status, if it has ended.
    bool poll(int& status) {
        const int error = warmfork_process_wait(handle_, WNOHANG, &status, nullptr);
        if (error == -EAGAIN) return false;
        check(error, "cannot wait for the child");
        return true;
    }

  private:
    static void check(int error, const char* what) {
        if (error == 0) return;
        warmfork_failure failure{};
        failure.error_number = -error;
        const std::string text = std::string(what) + ": " + std::strerror(-error);
        std::strncpy(failure.text, text.c_str(), sizeof failure.text - 1);
        throw Error(failure);
    }

    warmfork_process* handle_;
};

/// How a spawn would be served: warm (reason NONE), or cold and why.
struct Explanation {
    warmfork_reason reason;
    std::string text;
};

/// A template. Destroying it ends it and its spares; children that run are untouched.
class Template {
  public:
    explicit Template(const warmfork_template_options& options) {
        warmfork_failure failure{};
        if (warmfork_template_open(&options, &handle_, &failure)) throw Error(failure);
    }
    /// Opens a native template: a program that calls warmfork_template_serve.
    static Template native(const std::vector<std::string>& program,
                           std::int32_t spares = WARMFORK_SPARES_ADAPTIVE) {
        warmfork_template_options options;
        warmfork_template_options_init(&options);
        const auto arguments = detail::pointers(program);
        options.program = arguments.data();
        options.spares = spares;
        return Template(options);
    }
    /// Opens a Python template with modules imported.
    static Template python(const std::string& interpreter, const std::vector<std::string>& preload,
                           std::int32_t spares = WARMFORK_SPARES_ADAPTIVE) {
        warmfork_template_options options;
        warmfork_template_options_init(&options);
        const auto modules = detail::pointers(preload);
        options.python = interpreter.c_str();
        options.preload = modules.data();
        options.spares = spares;
        return Template(options);
    }
    /// Connects to a template of this user's service, by its name.
    static Template connect(const std::string& name,
                            warmfork_backend backend = WARMFORK_BACKEND_DEFAULT) {
        warmfork_failure failure{};
        warmfork_template* handle;
        if (warmfork_template_connect(name.c_str(), backend, &handle, &failure))
            throw Error(failure);
        return Template(handle);
    }
    Template(Template&& other) noexcept : handle_(std::exchange(other.handle_, nullptr)) {}
    Template& operator=(Template&& other) noexcept {
        std::swap(handle_, other.handle_);
        return *this;
    }
    ~Template() { warmfork_template_close(handle_); }

    warmfork_template* handle() const { return handle_; }

    /// Spawns a child; throws Error with the stage where it failed.
    Process spawn(const warmfork_request& request) {
        warmfork_failure failure{};
        warmfork_process* process;
        if (warmfork_spawn(handle_, &request, &process, &failure)) throw Error(failure);
        return Process(process);
    }
    Process spawn(const std::vector<std::string>& arguments) {
        const auto argument_pointers = detail::pointers(arguments);
        warmfork_request request;
        warmfork_request_init(&request);
        request.arguments = argument_pointers.data();
        return spawn(request);
    }
    /// Spawns `count` children of one request, as one command.
    std::vector<Process> spawn(const warmfork_request& request, std::uint32_t count) {
        warmfork_failure failure{};
        std::vector<warmfork_process*> handles(count);
        if (warmfork_spawn_many(handle_, &request, count, handles.data(), &failure))
            throw Error(failure);
        std::vector<Process> processes;
        for (warmfork_process* handle : handles) processes.emplace_back(handle);
        return processes;
    }

    /// Blocks until preloading is done.
    void wait_ready(int timeout_ms = -1) {
        warmfork_failure failure{};
        if (warmfork_template_wait_ready(handle_, timeout_ms, &failure)) throw Error(failure);
    }
    /// Says how a request would be served now, without a spawn.
    Explanation explain(const warmfork_request& request) {
        warmfork_failure failure{};
        warmfork_reason reason;
        char* text;
        if (warmfork_explain(handle_, &request, &reason, &text, &failure)) throw Error(failure);
        Explanation explanation{reason, text};
        ::free(text);
        return explanation;
    }
    /// Blocks until preloading is done, and so many children are parked.
    void wait_parked(std::uint32_t count, int timeout_ms = -1) {
        warmfork_failure failure{};
        if (warmfork_template_wait_parked(handle_, count, timeout_ms, &failure))
            throw Error(failure);
    }
    warmfork_counts counts() const {
        warmfork_counts counts{};
        counts.size = sizeof counts;
        warmfork_template_counts(handle_, &counts);
        return counts;
    }

  private:
    explicit Template(warmfork_template* handle) : handle_(handle) {}

    warmfork_template* handle_ = nullptr;
};

}  // namespace warmfork
