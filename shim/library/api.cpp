// The C ABI: arguments checked, exceptions kept in, results handed out.
#include <fcntl.h>
#include <fmt/format.h>
#include <signal.h>
#include <sys/wait.h>

#include <algorithm>
#include <cstdlib>
#include <cstring>
#include <new>

#include "channel/with_process.hpp"
#include "child/setup.hpp"
#include "client/leased_source.hpp"
#include "client/served_child.hpp"
#include "library/define_images.hpp"
#include "library/process_access.hpp"
#include "owner/benchmark.hpp"
#include "owner/companions.hpp"
#include "owner/embedded_source.hpp"
#include "owner/keeping.hpp"
#include "owner/spawn_cold.hpp"
#include "owner/spawner.hpp"
#include "owner/twin.hpp"
#include "template/serve.hpp"
#include "warmfork.h"

using warmfork::ColdReason;
using warmfork::Descriptor;
using warmfork::EmbeddedSource;
using warmfork::Failure;
using warmfork::ImageSet;
using warmfork::make_failure;
using warmfork::Outcome;
using warmfork::Request;
using warmfork::Spawned;
using warmfork::Spawner;
using warmfork::Stage;
using warmfork::TemplateProcess;

struct warmfork_template {
    const std::unique_ptr<warmfork::OpenTemplate> source;
    Spawner spawner;

    warmfork_template(std::unique_ptr<warmfork::OpenTemplate> opened, warmfork::SpawnPolicy policy)
        : source(std::move(opened)), spawner(*source, policy) {}
};

struct warmfork_process {
    const pid_t owner;
    const Spawned spawned;
    std::mutex mutex{};
    Descriptor pidfd{};
    bool is_reaped = false;
    bool is_lost = false;  ///< reaped by somebody else, and the kernel does not tell the status
    int status = 0;
    rusage usage{};

    /// Opens the pidfd of a child of this process, with the mutex held. `ret_own` holds it where
    /// the handle has none. Returns 0 or errno (ESRCH: it has been reaped).
    int open(Descriptor& ret_own, int& ret_number) const {
        if (!pidfd) ret_own = is_reaped ? Descriptor() : warmfork::open_process(spawned.identity());
        ret_number = pidfd ? pidfd.get() : ret_own.get();
        return ret_number >= 0 ? 0 : is_reaped ? ESRCH : errno;
    }
};

void warmfork_leave_unchecked(warmfork_template* self) {
    self->source->leave_unchecked();
}

bool warmfork_is_served(const warmfork_process* self) {
    return self->spawned.served != nullptr;
}

warmfork_process* warmfork_adopt(pid_t pid) {
    Spawned spawned;
    spawned.pid = pid;
    const Descriptor pidfd = warmfork::open_pidfd(pid);
    // Of one that has been reaped after all there is no mark.
    if (pidfd || errno != ESRCH) spawned.mark = warmfork::mark_of(pidfd.get());
    return new (std::nothrow) warmfork_process{::getpid(), std::move(spawned)};
}

Descriptor warmfork_open_pidfd(const warmfork_process* self) {
    if (!self->spawned.served) return warmfork::open_process(self->spawned.identity());
    return Descriptor(::fcntl(self->spawned.served->pidfd(), F_DUPFD_CLOEXEC, 0));
}

int warmfork_signal_by_anyone(const warmfork_process* self, int signal) {
    if (self->spawned.served) return self->spawned.served->signal(signal);
    return warmfork::with_process(self->spawned.identity(), [signal](int pidfd) {
        return warmfork::signal_pidfd(pidfd, signal) < 0 ? errno : 0;
    });
}

namespace {

/// Reports a failure to the caller; returns the negative errno.
int report(const Failure& failure, warmfork_failure* ret_failure) {
    if (ret_failure) {
        ret_failure->stage = static_cast<warmfork_stage>(failure.stage);
        ret_failure->error_number = failure.error_number;
        ret_failure->detail = failure.detail;
        const std::size_t size = std::min(failure.text.size(), sizeof ret_failure->text - 1);
        std::memcpy(ret_failure->text, failure.text.data(), size);
        ret_failure->text[size] = '\0';
    }
    return failure.error_number > 0 ? -failure.error_number : -EIO;
}

/// Runs `body`, which returns an Outcome; no exception passes the ABI.
template <typename Body>
int guarded(warmfork_failure* ret_failure, Body body) {
    try {
        const Outcome failure = body();
        return failure ? report(*failure, ret_failure) : 0;
    } catch (const std::bad_alloc&) {
        return report(make_failure(Stage::record, ENOMEM, "out of memory"), ret_failure);
    } catch (const std::exception& error) {
        return report({Stage::record, EIO, 0, error.what()}, ret_failure);
    }
}

Outcome check_usable(const warmfork_template* self) {
    if (!self) return make_failure(Stage::launch, EINVAL, "no template given");
    if (self->source->is_usable()) return {};
    return Failure{
        Stage::launch, ECHILD, 0,
        "this template belongs to the process that opened it, and this is a forked copy of "
        "that process: open another one here"};
}

TemplateProcess::Deadline deadline_after(int timeout_ms) {
    if (timeout_ms < 0) return {};
    return TemplateProcess::Clock::now() + std::chrono::milliseconds(timeout_ms);
}

Outcome open_template(const warmfork_template_options& given, warmfork_template*& ret_template) {
    warmfork_template_options options;
    warmfork_template_options_init(&options);
    std::memcpy(&options, &given, std::min(given.size, sizeof options));
    const bool has_program = options.program && options.program[0];
    if (has_program == (options.python != nullptr))
        return make_failure(Stage::record, EINVAL,
                            "a template has either a program or a Python interpreter");
    ImageSet::Definition definition;
    if (Outcome failure = warmfork::define_images(options, definition)) return failure;

    auto source = std::make_unique<EmbeddedSource>(std::move(definition));
    const warmfork_backend backend =
        warmfork::choose_backend(WARMFORK_BACKEND_DEFAULT, options.backend);
    if (backend != WARMFORK_BACKEND_COLD)
        if (Outcome failure = source->start(backend != WARMFORK_BACKEND_WARM)) return failure;
    ret_template = new warmfork_template(std::move(source), {options.backend, options.on_stale});
    return {};
}

class NativeHost : public warmfork::Host {
  public:
    int keep_twin(const warmfork::ProcessIdentity& twin, Descriptor channel,
                  const warmfork::ImageFacts& facts) override {
        return warmfork::keep_twin(twin, std::move(channel), facts);
    }
};

}  // namespace

int warmfork_keep_adopted(const warmfork_process* self, warmfork_failure* ret_failure) {
    return guarded(ret_failure,
                   [&] { return warmfork::give_child_to_keeper(self->spawned.identity()); });
}

extern "C" {

void warmfork_template_options_init(struct warmfork_template_options* options) {
    *options = {};
    options->size = sizeof *options;
    options->spares = WARMFORK_SPARES_ADAPTIVE;
    options->variants = 4;
}

void warmfork_request_init(struct warmfork_request* request) {
    *request = {};
    request->size = sizeof *request;
}

int warmfork_template_open(const struct warmfork_template_options* options,
                           warmfork_template** ret_template, struct warmfork_failure* ret_failure) {
    return guarded(ret_failure, [&]() -> Outcome {
        if (!options || !ret_template)
            return make_failure(Stage::record, EINVAL, "no options given");
        return open_template(*options, *ret_template);
    });
}

int warmfork_template_connect(const char* name, enum warmfork_backend backend,
                              warmfork_template** ret_template,
                              struct warmfork_failure* ret_failure) {
    return guarded(ret_failure, [&]() -> Outcome {
        if (!name || !ret_template) return make_failure(Stage::record, EINVAL, "no name given");
        auto source = std::make_unique<warmfork::LeasedSource>(name);
        if (Outcome failure = source->open()) return failure;
        *ret_template = new warmfork_template(std::move(source), {backend});
        return {};
    });
}

int warmfork_template_wait_ready(warmfork_template* self, int timeout_ms,
                                 struct warmfork_failure* ret_failure) {
    return guarded(ret_failure, [&] {
        Outcome failure = check_usable(self);
        return failure ? failure : self->source->wait_ready(deadline_after(timeout_ms));
    });
}

void warmfork_template_progress(warmfork_template* self, char* text, size_t size) {
    const std::string progress =
        self && self->source->is_usable() ? self->source->progress() : std::string();
    if (size > 0) text[progress.copy(text, size - 1)] = '\0';
}

int warmfork_template_wait_parked(warmfork_template* self, uint32_t count, int timeout_ms,
                                  struct warmfork_failure* ret_failure) {
    return guarded(ret_failure, [&] {
        Outcome failure = check_usable(self);
        return failure ? failure : self->source->wait_parked(count, deadline_after(timeout_ms));
    });
}

int warmfork_template_set_spares(warmfork_template* self, int32_t spares) {
    return guarded(nullptr, [&]() -> Outcome {
        if (Outcome failure = check_usable(self)) return failure;
        std::uint32_t least, most;
        if (Outcome failure = warmfork::set_range(spares, least, most)) return failure;
        const int error = self->source->set_spares(least, most);
        return error ? Outcome(make_failure(Stage::launch, error, "the ring is full")) : Outcome();
    });
}

pid_t warmfork_template_pid(warmfork_template* self) {
    return self && self->source->is_usable() ? self->source->pid() : 0;
}

uint32_t warmfork_template_parked(warmfork_template* self) {
    return self && self->source->is_usable() ? self->source->parked() : 0;
}

int warmfork_template_counts(warmfork_template* self, struct warmfork_counts* ret_counts) {
    if (!self || !ret_counts) return -EINVAL;
    warmfork_counts counts{};
    self->spawner.counts(counts);
    counts.template_starts = self->source->starts();
    counts.size = std::min(ret_counts->size, sizeof counts);
    std::memcpy(ret_counts, &counts, counts.size);
    return 0;
}

int warmfork_template_report(warmfork_template* self, char** ret_json,
                             struct warmfork_failure* ret_failure) {
    return guarded(ret_failure, [&]() -> Outcome {
        if (Outcome failure = check_usable(self)) return failure;
        std::string json;
        if (Outcome failure = self->source->report(json)) return failure;
        char* copy = ::strdup(json.c_str());
        if (!copy) return make_failure(Stage::launch, ENOMEM, "out of memory");
        *ret_json = copy;
        return {};
    });
}

void warmfork_template_close(warmfork_template* self) {
    delete self;
}

int warmfork_spawn_many(warmfork_template* self, const struct warmfork_request* request,
                        uint32_t count, warmfork_process** ret_processes,
                        struct warmfork_failure* ret_failure) {
    return guarded(ret_failure, [&]() -> Outcome {
        warmfork::look_after_keepers();
        if (self)
            if (Outcome failure = check_usable(self)) return failure;
        if (!request || count == 0 || count > warmfork::kMaximumBatch)
            return make_failure(Stage::record, EINVAL, "no request, or a wrong number of children");
        Request read;
        if (Outcome failure = read.read(*request)) return failure;
        std::vector<Spawned> spawned;
        Outcome failure =
            self ? self->spawner.spawn(read, count, spawned)
                 : spawn_without_template(
                       read, count, {WARMFORK_REASON_NO_TEMPLATE, "spawned without a template"},
                       spawned);
        if (failure) return failure;
        for (std::uint32_t i = 0; i < count; ++i)
            ret_processes[i] = new warmfork_process{::getpid(), spawned[i]};
        return {};
    });
}

int warmfork_spawn(warmfork_template* self, const struct warmfork_request* request,
                   warmfork_process** ret_process, struct warmfork_failure* ret_failure) {
    return warmfork_spawn_many(self, request, 1, ret_process, ret_failure);
}

int warmfork_explain(warmfork_template* self, const struct warmfork_request* request,
                     enum warmfork_reason* ret_reason, char** ret_text,
                     struct warmfork_failure* ret_failure) {
    return guarded(ret_failure, [&]() -> Outcome {
        if (Outcome failure = check_usable(self)) return failure;
        Request read;
        if (Outcome failure = read.read(*request)) return failure;
        ColdReason reason;
        if (Outcome failure = self->spawner.explain(read, reason)) return failure;
        char* text = ::strdup(reason.text.c_str());
        if (!text) return make_failure(Stage::record, ENOMEM, "out of memory");
        *ret_reason = reason.reason;
        *ret_text = text;
        return {};
    });
}

int warmfork_keep(pid_t pid, struct warmfork_failure* ret_failure) {
    return guarded(ret_failure, [&]() -> Outcome {
        const warmfork::Descriptor pidfd = warmfork::open_pidfd(pid);
        if (!pidfd) return make_failure(Stage::fork, errno, "cannot open a pidfd of the child");
        return warmfork::give_child_to_keeper({pid, warmfork::mark_of(pidfd.get())});
    });
}

pid_t warmfork_process_pid(const warmfork_process* self) {
    return self->spawned.pid;
}

enum warmfork_backend warmfork_process_backend(const warmfork_process* self) {
    return self->spawned.is_warm ? WARMFORK_BACKEND_WARM : WARMFORK_BACKEND_COLD;
}

enum warmfork_reason warmfork_process_reason(const warmfork_process* self, const char** ret_text) {
    if (ret_text) *ret_text = self->spawned.reason.text.c_str();
    return self->spawned.reason.reason;
}

int warmfork_process_pidfd(warmfork_process* self) {
    if (self->owner != ::getpid()) return -ECHILD;
    if (self->spawned.served) return self->spawned.served->pidfd();
    const std::lock_guard lock(self->mutex);
    int number;
    Descriptor own;
    if (const int error = self->open(own, number)) return -error;
    if (own) self->pidfd = std::move(own);
    return number;
}

int warmfork_process_wait(warmfork_process* self, int options, int* ret_status,
                          struct rusage* ret_usage) {
    if (self->owner != ::getpid()) return -ECHILD;
    if (options & ~WNOHANG) return -EINVAL;
    if (self->spawned.served) {
        warmfork::ExitReport exit;
        if (int error = self->spawned.served->wait(!(options & WNOHANG), exit)) return -error;
        if (ret_status) *ret_status = exit.status;
        if (ret_usage) *ret_usage = exit.usage;
        return 0;
    }
    Descriptor own;
    int number;
    bool is_full;  // no descriptor is free
    {
        const std::lock_guard lock(self->mutex);
        const int error = self->open(own, number);
        is_full = error && error != ESRCH;
        if (is_full && (error != EMFILE || !(options & WNOHANG))) return -error;
    }
    // The child is looked at without reaping, so that no lock is held while it runs.
    siginfo_t info;
    if (number >= 0 && !(options & WNOHANG))
        while (::waitid(P_PIDFD, static_cast<id_t>(number), &info, WEXITED | WNOWAIT) < 0 &&
               errno == EINTR) {
        }
    const std::lock_guard lock(self->mutex);
    if (!self->is_reaped) {
        const auto reap = [self](int pidfd) {
            return warmfork::reap(pidfd, WNOHANG, &self->status, &self->usage);
        };
        const int error = number >= 0 ? reap(number)
                          : is_full   ? warmfork::with_process(self->spawned.identity(), reap)
                                      : ECHILD;
        if (error == EAGAIN || error == EMFILE || error == ENFILE) return -error;
        self->is_reaped = true;  // by us or by somebody else: its number may be another's soon
        if (error) self->is_lost = !warmfork::ask_kernel_for_status(number, self->status);
    }
    if (self->is_lost) return -ECHILD;
    if (ret_status) *ret_status = self->status;
    if (ret_usage) *ret_usage = self->usage;
    return 0;
}

int warmfork_process_signal(warmfork_process* self, int signal) {
    if (self->owner != ::getpid()) return -ECHILD;
    if (self->spawned.served) return -self->spawned.served->signal(signal);
    const std::lock_guard lock(self->mutex);
    return self->is_reaped ? -ESRCH : -warmfork_signal_by_anyone(self, signal);
}

void warmfork_process_free(warmfork_process* self) {
    delete self;
}

int warmfork_template_serve(struct warmfork_command* ret_command,
                            struct warmfork_failure* ret_failure) {
    static NativeHost host;  // must outlive the call in every child
    warmfork::ChildCommand child{};
    bool is_child = false;
    const int error = guarded(ret_failure, [&]() -> Outcome {
        if (auto failure = warmfork::open_channel(host))
            return Failure{failure->error_number == EBUSY ? Stage::gate : Stage::launch,
                           failure->error_number, 0, std::move(failure->text)};
        is_child = warmfork::serve(child);
        return {};
    });
    if (!is_child) return error;
    warmfork_command command{};
    command.size = std::min(ret_command->size, sizeof command);
    command.argument_count = static_cast<int>(child.arguments.size());
    command.arguments = child.arguments.data();
    command.payload = child.payload.data();
    command.payload_size = child.payload.size();
    std::memcpy(ret_command, &command, command.size);
    if (!warmfork::set_signal_mask(child.signal_mask)) ::_exit(warmfork::kFailedStatus);
    return 1;
}

}  // extern "C"
