#include "kill_matrix/cell_run.hpp"

#include <fcntl.h>
#include <fmt/format.h>
#include <poll.h>
#include <signal.h>
#include <sys/prctl.h>
#include <sys/stat.h>
#include <sys/wait.h>
#include <unistd.h>

#include <algorithm>
#include <chrono>
#include <fstream>
#include <random>
#include <sstream>

#include "kill_matrix/caller.hpp"
#include "support/service.hpp"

namespace {

using Clock = std::chrono::steady_clock;
using warmfork::Descriptor;

// Nothing takes so long that can come to an end: what does hangs.
constexpr std::chrono::seconds kPatience{60};
// Where nothing tells it is looked again after this time, in milliseconds.
constexpr int kLook = 5;

/// R, S, T, Z as of proc(5); 0: there is no such process.
char state_of(pid_t pid) {
    std::ifstream file(fmt::format("/proc/{}/stat", pid));
    std::stringstream text;
    text << file.rdbuf();
    const std::size_t at = text.str().rfind(')');
    return at == std::string::npos ? '\0' : text.str()[at + 2];
}

void add_descendants(pid_t pid, std::vector<int>& ret_pids) {
    for (int child : children_of(pid)) {
        ret_pids.push_back(child);
        add_descendants(child, ret_pids);
    }
}

class CellRun {
  public:
    explicit CellRun(const CellPlan& plan) : plan_(plan), chance_(plan.seed.value_or(0)) {
        ::prctl(PR_SET_CHILD_SUBREAPER, 1, 0, 0, 0);
        for (const char* of : {"/caller", "/service"}) {
            ::mkdir((files_.path() + of).c_str(), 0700);
            const std::string fifo = files_.path() + of + "/reached";
            if (::mkfifo(fifo.c_str(), 0600) < 0) throw std::runtime_error("mkfifo");
            fifos_.emplace_back(::open(fifo.c_str(), O_RDWR | O_NONBLOCK | O_CLOEXEC));
        }
    }
    ~CellRun() {
        service_.reset();
        end_all();
    }

    std::string run() {
        try {
            play();
        } catch (const std::exception& error) {
            complain(error.what());
        }
        return outcome_ + "\n" + text_ + "\n" + wrong_;
    }

  private:
    void play() {
        // What the service does as it starts is part of that scene.
        const bool is_armed_early = !plan_.seed && plan_.cell.scene == Scene::served_launch;
        if (is_armed_early) arm();
        if (is_served(plan_.cell.scene)) start_service();
        start_caller();
        await_line("ready");
        if (plan_.seed) {
            provoke();
            strike_by_chance();
        } else {
            if (!is_armed_early) arm();
            provoke();
        }
        await([&] { return has_caller_ended() || (lines_.size() > 1 && !is_caller_struck_); },
              "the first call hangs");
        if (!plan_.seed) await([&] { return reached_ != 0; }, "the step was not reached");
        if (hanging_ > 0) ::kill(hanging_, SIGCONT);
        outcome_ = has_caller_ended() ? "+" : outcome_in(1);
        if (!has_caller_ended()) finish_caller();
        if (!wrong_.empty()) return;
        finish_service();
        await([&] { return children_of(::getpid()).empty(); }, "something is left");
        if (!wrong_.empty()) return;
        check_marks();
        check_outcome();
    }

    void complain(const std::string& text) { wrong_ += text + "\n"; }

    // The parties.

    void start_service() {
        TestService::Settings settings;
        settings.has_passed_socket = true;  // as systemd's: it outlives the daemon
        settings.templates["probe"] = probe_definition("spares = 1\n");
        settings.environment = {"WARMFORK_STOPPING_POINTS=" + files_.path() + "/service"};
        service_.emplace(std::move(settings));
        if (!service_->is_ready()) throw std::runtime_error("the service does not start");
        if (plan_.cell.scene == Scene::served_launch) return;
        // Until it has parked a child.
        RawClient client(service_->socket());
        client.send(warmfork::ServiceKind::manage, 1,
                    warmfork::FieldWriter().text("start").text("probe").bytes());
        warmfork::ServiceMessage answer;
        client.receive(warmfork::ServiceKind::managed, answer);
        for (int tries = 0; tries < 2000 && parked_spares(client) == 0; ++tries)
            ::poll(nullptr, 0, kLook);
    }

    void start_caller() {
        caller_ = ::fork();
        if (caller_ == 0) {
            ::prctl(PR_SET_CHILD_SUBREAPER, 0, 0, 0, 0);
            if (service_) ::setenv("WARMFORK_SOCKET", service_->socket().c_str(), 1);
            ::setenv("WARMFORK_STOPPING_POINTS", (files_.path() + "/caller").c_str(), 1);
            release_.write_end.reset();
            input_.write_end.reset();
            ::_exit(act_as_caller({plan_.cell.scene, is_caller_killed(), marks_.write_end.get(),
                                   release_.read_end.get(), output_.write_end.get(),
                                   input_.read_end.get()}));
        }
        output_.write_end.reset();
        ::fcntl(output_.read_end.get(), F_SETFL, O_NONBLOCK);
    }

    bool is_caller_killed() const {
        return !plan_.seed && *plan_.cell.outcomes[static_cast<int>(plan_.action)] == '+';
    }

    // The death.

    void arm() {
        const char* of = plan_.cell.is_of_service ? "/service/" : "/caller/";
        const char* ending = plan_.action == Action::kill ? ".kill" : ".stop";
        std::ofstream(files_.path() + of + plan_.cell.point + ending);
    }

    /// Lets happen what the scene is about.
    void provoke() {
        if (plan_.cell.scene == Scene::owner_ends && !plan_.seed) {
            ::kill(caller_, SIGKILL);
            return;
        }
        if (plan_.cell.scene == Scene::reload) service_->signal(SIGHUP);
        if (plan_.cell.scene == Scene::served_exit) release_.write_end.reset();
        give_cue();
    }

    void strike_by_chance() {
        for (auto strikes = 1 + chance_() % 3; strikes > 0; --strikes) {
            spin(static_cast<int>(chance_() % 3'000'000));
            std::vector<int> victims;
            add_descendants(::getpid(), victims);
            if (victims.empty()) return;
            const pid_t victim = victims[chance_() % victims.size()];
            if (chance_() % 2) {
                strike(victim);
                continue;
            }
            ::kill(victim, SIGSTOP);
            spin(static_cast<int>(chance_() % 3'000'000));
            ::kill(victim, SIGCONT);
        }
    }

    void strike(pid_t victim) {
        ::kill(victim, SIGKILL);
        is_caller_struck_ = is_caller_struck_ || victim == caller_;
        if (service_ && victim == service_->pid()) replace_service();
    }

    /// As systemd does.
    void replace_service() {
        service_->kill();
        service_->start();
    }

    void on_reached(pid_t pid) {
        reached_ = pid;
        if (plan_.action == Action::kill) {
            if (service_ && pid == service_->pid()) replace_service();
            return;
        }
        while (state_of(pid) != 'T' && state_of(pid) != '\0') ::poll(nullptr, 0, 1);
        if (plan_.action == Action::stop)
            ::kill(pid, SIGCONT);
        else
            hanging_ = pid;
    }

    // What the parties say.

    void give_cue() {
        if (::write(input_.write_end.get(), "\n", 1) != 1) complain("the caller does not listen");
    }

    bool has_caller_ended() { return caller_ == 0; }

    /// Looks once at everything, and waits for a moment if there is nothing.
    void look() {
        std::vector<pollfd> polled{{output_.read_end.get(), POLLIN, 0}};
        for (const Descriptor& fifo : fifos_) polled.push_back({fifo.get(), POLLIN, 0});
        ::poll(polled.data(), polled.size(), kLook);
        char buffer[4096];
        for (const Descriptor& fifo : fifos_)
            if (const ssize_t size = ::read(fifo.get(), buffer, sizeof buffer - 1); size > 0) {
                buffer[size] = '\0';
                on_reached(std::atoi(buffer));
            }
        if (const ssize_t size = ::read(output_.read_end.get(), buffer, sizeof buffer); size > 0)
            add_output({buffer, static_cast<std::size_t>(size)});
        reap_ended();
    }

    void add_output(std::string_view bytes) {
        for (char byte : bytes) {
            if (byte != '\n')
                line_ += byte;
            else
                lines_.push_back(std::exchange(line_, {}));
        }
    }

    void reap_ended() {
        for (int child : children_of(::getpid())) {
            if (service_ && child == service_->pid()) continue;
            if (::waitpid(child, nullptr, WNOHANG) == child && child == caller_) caller_ = 0;
        }
    }

    template <typename Done>
    void await(Done done, const std::string& otherwise) {
        const auto deadline = Clock::now() + kPatience;
        while (!done()) {
            look();
            if (Clock::now() < deadline) continue;
            complain(otherwise);
            std::vector<int> left;
            add_descendants(::getpid(), left);
            for (int pid : left)
                complain(fmt::format("  {} {} {}", pid, name_of(pid), state_of(pid)));
            throw std::runtime_error("given up");
        }
    }

    std::string await_line(const std::string& beginning) {
        const std::size_t before = lines_.size();
        await([&] { return lines_.size() > before || has_caller_ended(); },
              "waited for: " + beginning);
        if (lines_.size() == before || !lines_[before].starts_with(beginning)) {
            complain(fmt::format("instead of \"{}\": {}", beginning,
                                 lines_.size() > before ? lines_[before] : "the caller ended"));
            throw std::runtime_error("given up");
        }
        return lines_[before].substr(beginning.size());
    }

    std::string outcome_in(std::size_t line) {
        text_ = lines_.at(line);
        return text_.substr(std::string_view("call 1 ").size(), 1);
    }

    // The end.

    void finish_caller() {
        give_cue();
        const std::string second = await_line("call 2 ");
        if (second[0] != 'w' && second[0] != 'c')
            complain(fmt::format("the call after it: {} (the first: {})", second, text_));
        if (!plan_.seed && outcome_ != "e" && !second.ends_with(" 0"))
            complain(fmt::format("the call after it was tried again: {}", second));
        give_cue();
        const std::string leaks = await_line("closed");
        if (leaks != " ") complain("descriptors that are left in the caller:" + leaks);
        give_cue();
        await([&] { return has_caller_ended(); }, "the caller does not end");
    }

    void finish_service() {
        if (!service_) return;
        service_->signal(SIGTERM);
        const int status = service_->wait();
        if (status != 0) complain(fmt::format("the service ended with {}", status));
    }

    /// How often each child ran, and with which descriptors.
    void check_marks() {
        std::istringstream text(marks_.read_all());
        int first = 0, second = 0;
        for (std::string line; std::getline(text, line);) {
            if (line.find(':') == std::string::npos) continue;  // the pid of one that waits
            first += line[0] == '1';
            second += line[0] == '2';
            if (line.substr(1) != ":3") complain("a child with other descriptors: " + line);
        }
        if (outcome_ != "+" && second != 1) complain(fmt::format("the second ran {}", second));
        const bool has_first = outcome_ == "w" || outcome_ == "c";
        if (first > 1 || (has_first && first == 0) || (outcome_ == "e" && first > 0))
            complain(fmt::format("outcome {}, but the child ran {} times", outcome_, first));
    }

    void check_outcome() {
        const std::string expected =
            plan_.seed ? "wckle+" : plan_.cell.outcomes[static_cast<int>(plan_.action)];
        if (expected.find(outcome_) == std::string::npos)
            complain(fmt::format("outcome {} instead of {}: {}", outcome_, expected, text_));
    }

    void end_all() {
        for (int tries = 0; tries < 1000; ++tries) {
            std::vector<int> left;
            add_descendants(::getpid(), left);
            if (left.empty()) return;
            for (int pid : left) ::kill(pid, SIGKILL);
            while (::waitpid(-1, nullptr, WNOHANG) > 0) {
            }
            ::poll(nullptr, 0, 1);
        }
    }

    const CellPlan& plan_;
    std::mt19937 chance_;
    TemporaryDirectory files_;
    std::vector<Descriptor> fifos_;
    std::optional<TestService> service_;
    Pipe output_, input_, marks_, release_;
    pid_t caller_ = 0, reached_ = 0, hanging_ = 0;
    bool is_caller_struck_ = false;  // by chance
    std::string line_, outcome_, text_, wrong_;
    std::vector<std::string> lines_;
};

}  // namespace

RunningCell start_cell(const CellPlan& plan) {
    int ends[2];
    if (::pipe2(ends, O_CLOEXEC) < 0) throw std::runtime_error("pipe2");
    const pid_t pid = ::fork();
    if (pid == 0) {
        ::close(ends[0]);
        std::string text;
        {
            CellRun run(plan);
            text = run.run();
        }
        ::_exit(::write(ends[1], text.data(), text.size()) < 0);
    }
    ::close(ends[1]);
    return {pid, ends[0]};
}

CellResult read_result(const std::string& text) {
    const std::size_t end = text.find('\n');
    if (end == std::string::npos) return {"", "", "the process that runs the cell has ended\n"};
    const std::size_t next = text.find('\n', end + 1);
    return {text.substr(0, end), text.substr(end + 1, next - end - 1), text.substr(next + 1)};
}
