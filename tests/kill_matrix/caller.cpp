#include "kill_matrix/caller.hpp"

#include <fmt/format.h>
#include <poll.h>
#include <sys/wait.h>
#include <unistd.h>

#include <cerrno>
#include <chrono>
#include <filesystem>
#include <map>
#include <memory>
#include <optional>

#include "support/processes.hpp"

namespace {

namespace fs = std::filesystem;
using std::chrono::steady_clock;

// Of a template that was killed while it preloaded, until it is tried again.
constexpr std::chrono::seconds kRetryPatience{20};

std::map<int, std::string> open_descriptors() {
    std::map<int, std::string> found;
    std::error_code error;
    for (const auto& entry : fs::directory_iterator("/proc/self/fd", error)) {
        const std::string target = fs::read_symlink(entry.path(), error).string();
        const bool is_kept = target.empty() || target.starts_with("/proc/");
        if (!is_kept) found[std::stoi(entry.path().filename().string())] = target;
    }
    return found;
}

struct FreeChild {
    void operator()(warmfork_process* child) const { warmfork_process_free(child); }
};
using Child = std::unique_ptr<warmfork_process, FreeChild>;

class Caller {
  public:
    explicit Caller(const CallerPlan& plan) : plan_(plan), descriptors_(open_descriptors()) {}

    int act() {
        prepare();
        next_cue("ready");
        next_cue(fmt::format("call 1 {}", call('1')));
        std::string second = call('2');
        const auto deadline = steady_clock::now() + kRetryPatience;
        int tries = 0;
        while (second.starts_with('e') && steady_clock::now() < deadline) {
            ++tries;
            ::poll(nullptr, 0, 20);  // until the template is tried again, of which nothing tells
            second = call('2');
        }
        next_cue(fmt::format("call 2 {} {}", second, tries));
        child_.reset();
        template_.reset();
        next_cue("closed " + leaks());
        return 0;
    }

  private:
    void next_cue(const std::string& line) {
        const std::string text = line + "\n";
        char cue;
        if (::write(plan_.output, text.data(), text.size()) < 0) ::_exit(2);
        if (::read(plan_.input, &cue, 1) != 1) ::_exit(3);
    }

    void prepare() {
        switch (plan_.scene) {
            case Scene::launched:
            case Scene::served:
            case Scene::served_launch:
                return;
            case Scene::parked:
                open();
                return template_->wait_parked(1);
            case Scene::forked:
            case Scene::cold:
                open();
                return template_->wait_ready();
            case Scene::owner_ends:
                open();
                start("3", WARMFORK_BACKEND_WARM);
                return start("4", WARMFORK_BACKEND_COLD);
            case Scene::served_exit:
            case Scene::reload:
                open();
                if (plan_.scene == Scene::served_exit) start("1", WARMFORK_BACKEND_WARM);
        }
    }

    void open() {
        if (is_served(plan_.scene)) {
            template_ = warmfork::Template::connect("probe");
            return;
        }
        const bool parks = plan_.scene == Scene::parked || plan_.scene == Scene::launched;
        template_ = probe_template(parks ? 1 : 0);
    }

    /// A first child need not wait for the image: this one does, as long as a later one would.
    void await_image() {
        constexpr int kReadyPatience = 15'000;  // milliseconds
        try {
            template_->wait_ready(kReadyPatience);
        } catch (const warmfork::Error& error) {
            if (error.error_number() != ETIMEDOUT) throw;
        }
    }

    /// A child that runs on.
    void start(const char* mark, warmfork_backend backend) {
        const bool is_released = plan_.scene == Scene::served_exit;
        std::vector<std::string> words{"mark", mark, "wait"};
        if (is_released) words = {"mark", mark, "cue", "exit", "7"};
        ProbeRequest request(std::move(words));
        request.descriptors = {{plan_.marks, 1}};
        if (is_released) request.descriptors.push_back({plan_.release, 0});
        request.request.backend = backend;
        child_ = spawn(request);
    }

    Child spawn(ProbeRequest& request) {
        warmfork_process* child = nullptr;
        warmfork_failure failure{};
        if (warmfork_spawn(template_->handle(), &request.get(), &child, &failure))
            throw warmfork::Error(failure);
        return Child(child);
    }

    std::string call(char mark) {
        try {
            if (!template_) open();
            if (plan_.scene == Scene::launched && mark == '1') await_image();
            if (mark == '1' && plan_.scene == Scene::served_exit) return outcome_of(child_.get());
            std::vector<std::string> words{"mark", {mark}, "exit", "7"};
            if (plan_.is_killed) words = {"mark", {mark}, "wait"};
            ProbeRequest request(std::move(words));
            request.descriptors = {{plan_.marks, 1}};
            request.request.backend =
                plan_.scene == Scene::cold ? WARMFORK_BACKEND_COLD : WARMFORK_BACKEND_AUTO;
            return outcome_of(spawn(request).get());
        } catch (const warmfork::Error& error) {
            return fmt::format("e stage {}: {}", static_cast<int>(error.stage()), error.what());
        }
    }

    static std::string outcome_of(warmfork_process* child) {
        int status = 0;
        if (int error = warmfork_process_wait(child, 0, &status, nullptr)) {
            const char letter = error == -EOWNERDEAD ? 'l' : '?';
            return fmt::format("{} wait: errno {}", letter, -error);
        }
        if (WIFSIGNALED(status) && WTERMSIG(status) == SIGKILL) return "k killed";
        if (!WIFEXITED(status) || WEXITSTATUS(status) != 7)
            return fmt::format("? status {:#x}", status);
        const char* text = "";
        const warmfork_reason reason = warmfork_process_reason(child, &text);
        return reason == WARMFORK_REASON_NONE ? "w" : fmt::format("c {}", text);
    }

    /// Not the sockets of keepers and of the service, nor the files of the service's image, which
    /// stay for the life of the process.
    std::string leaks() {
        std::string text;
        for (const auto& [number, target] : open_descriptors())
            if (!descriptors_.count(number) && !is_keeper_socket(number) &&
                !(is_served(plan_.scene) && target == "anon_inode:inotify"))
                text += fmt::format(" {}={}", number, target);
        return text;
    }

    const CallerPlan& plan_;
    const std::map<int, std::string> descriptors_;
    std::optional<warmfork::Template> template_;
    Child child_;
};

}  // namespace

int act_as_caller(const CallerPlan& plan) {
    return Caller(plan).act();
}
