// The interpreter around each fork, and user code run in it.
#pragma once

#include <Python.h>
#include <signal.h>

#include <string>
#include <utility>
#include <vector>

#include "owner/twin.hpp"
#include "template/host.hpp"

namespace warmfork::python {

/// The status of a template that cannot serve, and of a child that cannot be made.
constexpr int kFailedStatus = 1;
constexpr int kSignalCount = 64;

/// Prints the exception that is set, and ends the process, unless `is_right`.
void end_unless(bool is_right);

/// Is this a child that is to become a template?
bool is_layer();
/// Returns its control socket, which is the caller's from then on, or -1 where it is none.
int take_layer_channel();
int layer_channel();

class PythonHost : public Host {
  public:
    /// `hook` is called before each fork, unless it is None. `import_log` is the file where
    /// children report what they imported; where it is empty they do not. `obstacle` and `findings`
    /// are as of Host.
    PythonHost(PyObject* child, PyObject* hook, const char* report, ImageFacts facts,
               const char* import_log, const char* obstacle, std::vector<Finding> findings)
        : child_(child),
          hook_(hook),
          report_(report),
          facts_(std::move(facts)),
          import_log_(import_log),
          obstacle_(obstacle),
          findings_(std::move(findings)) {
        for (int signal = 1; signal <= kSignalCount; ++signal)
            ::sigaction(signal, nullptr, &dispositions_[signal - 1]);
        ::sigaltstack(nullptr, &signal_stack_);
        // Serving never comes back to Python, whose handler would only note the signal: a template
        // that is interrupted ends, as one that is terminated does. It is in no terminal's group.
        if (dispositions_[SIGINT - 1].sa_handler != SIG_IGN) ::signal(SIGINT, SIG_DFL);
    }

    void before_fork() override {
        call_hook();
        PyOS_BeforeFork();
    }
    void after_fork_in_template() override { PyOS_AfterFork_Parent(); }
    void after_fork_in_child() override { PyOS_AfterFork_Child(); }
    int keep_twin(const ProcessIdentity& twin, Descriptor channel,
                  const ImageFacts& facts) override {
        return warmfork::keep_twin(twin, std::move(channel), facts);
    }
    void part_from_siblings() override;
    void rehearse() override;
    std::string obstacle() override { return obstacle_; }
    std::vector<Finding> findings() override { return findings_; }
    void describe(ImageFacts& facts) override {
        facts.variables.merge(facts_.variables);
        facts.reads_all_variables |= facts_.reads_all_variables;
        facts.sources.merge(facts_.sources);
        facts.caches.merge(facts_.caches);
        facts.shadowable.merge(facts_.shadowable);
        for (auto& [path, modules] : facts_.places) facts.places[path].merge(modules);
    }
    std::string report() override { return report_; }

    /// Installs the handlers of the interpreter and of preloaded modules, as a fresh interpreter
    /// would have, except where a signal is ignored from the start.
    void install_signals(std::uint64_t ignored) override {
        for (int signal = 1; signal <= kSignalCount; ++signal) {
            const struct sigaction& disposition = dispositions_[signal - 1];
            if (disposition.sa_handler != SIG_DFL && !(ignored >> (signal - 1) & 1))
                ::sigaction(signal, &disposition, nullptr);
        }
        if (!(signal_stack_.ss_flags & SS_DISABLE)) ::sigaltstack(&signal_stack_, nullptr);
    }
    [[noreturn]] void run(const ChildCommand& command) override;

  private:
    void call_hook();
    void get_ready();
    void rehearse_program(char* source);

    PyObject* child_;
    PyObject* hook_;
    std::string report_;
    ImageFacts facts_;
    std::string import_log_;
    std::string obstacle_;
    std::vector<Finding> findings_;
    struct sigaction dispositions_[kSignalCount] {};
    stack_t signal_stack_{};
};

}  // namespace warmfork::python
