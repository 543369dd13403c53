// warmfork(1): parses its command line, and does what it says.
#include <CLI/CLI.hpp>

#include "cli/commands.hpp"

using namespace warmfork::cli;

namespace {

constexpr int kNotUnderstood = 125;

void add_template_options(CLI::App& command, TemplateOptions& options) {
    command.add_option("--preload", options.preload, "Modules to import in the template")
        ->delimiter(',')
        ->allow_extra_args(false)
        ->type_name("M,...");
    command.add_option("--python", options.python,
                       "The template's interpreter (default: the command's own, or python3)");
    command.add_flag("--learn", options.learn,
                     "Remember what children import, and preload what most of them do");
}

void add_board_options(CLI::App& command, BoardOptions& options) {
    command.add_option("--user", options.user, "Whose daemon, name or number (default: yours)")
        ->type_name("USER");
    command.add_option("name", options.instance,
                       "The daemon's name, as NAME of warmforkd@NAME.service (default: the one "
                       "without)");
}

}  // namespace

int main(int argc, char** argv) {
    CLI::App app("Starts processes from a template that has its start-up behind it.", "warmfork");
    app.set_version_flag("--version", WARMFORK_VERSION);
    app.require_subcommand(1);
    app.footer(
        "Exit status: of `run` the child's own, 128+n if signal n ended it, 125 if it could not "
        "be\n"
        "started, 127 if its program was not found. Of the others 0, or 1 with a message.\n"
        "`explain` ends with 2 where the command would be cold, `status` and `top` with 3 where\n"
        "no daemon runs. 125: the command line is wrong.\n"
        "WARMFORK_BACKEND=auto|warm|cold selects the backend where no option does.");

    RunOptions run;
    CLI::App* run_command = app.add_subcommand(
        "run", "Open a template, spawn one command from it, end as the command ends");
    add_template_options(*run_command, run.from);
    run_command->add_option("--backend", run.backend, "auto, warm or cold")
        ->check(CLI::IsMember({"auto", "warm", "cold"}));
    run_command->add_flag("--explain", run.explain,
                          "Say on standard error which backend served, and why");
    run_command->add_option("command", run.command, "The command: -- python3 script.py ...")
        ->required();
    run_command->footer(
        "Standard streams, directory and environment are the caller's. Signals are "
        "forwarded.");

    ExplainOptions question;
    CLI::App* explain_command = app.add_subcommand(
        "explain", "Say whether a command would be warm, and if not why, without starting it");
    add_template_options(*explain_command, question.from);
    explain_command->add_flag("--json", question.json, "Print JSON");
    explain_command
        ->add_option("command", question.command, "The command: -- python3 script.py ...")
        ->required();
    explain_command->footer(
        "Exit status: 0 warm, 2 cold, 1 the template does not start. A command that a variant "
        "will\n"
        "serve once it is preloaded counts as cold: that is what the first spawn is.");

    DoctorOptions doctor;
    CLI::App* doctor_command = app.add_subcommand(
        "doctor", "Show what the fork-safety gate sees of a template, and what its imports cost");
    add_template_options(*doctor_command, doctor.of);
    doctor_command->add_flag("--json", doctor.json, "Print JSON");

    CLI::App* bench_command = app.add_subcommand(
        "bench",
        "Measure spawns: serial, concurrent, resident or multiprocessing; plot (each has --help)");
    bench_command->prefix_command();
    bench_command->set_help_flag();  // like all of their options it goes to the program

    CLI::App* profile_command = app.add_subcommand(
        "profile", "Show what imports cost: time, memory, forks; what is worth preloading");
    profile_command->prefix_command();
    profile_command->set_help_flag();

    StatusOptions status;
    CLI::App* status_command =
        app.add_subcommand("status", "Show the daemon, its templates and its clients, once");
    add_board_options(*status_command, status.of);
    auto* json = status_command->add_flag("--json", status.json, "Print JSON");
    status_command->add_flag("--metrics", status.metrics, "Print the text format of Prometheus")
        ->excludes(json);
    status_command->footer(
        "What is shown is read from the daemon's statistics board in shared memory: it costs the\n"
        "daemon nothing, and works while the daemon is busy. Counts and percentiles are of the\n"
        "time since the daemon started. A number that is not known is \"-\", in JSON null.\n"
        "Exit status: 0; 3 no daemon runs (--json and --metrics say so on standard output too);\n"
        "1 the board cannot be read.");

    BoardOptions top;
    CLI::App* top_command =
        app.add_subcommand("top", "Show the templates, redrawn each second until q or Ctrl-C");
    add_board_options(*top_command, top);
    top_command->footer(
        "A SECOND is of the last second, P50, P90 and P99 are of the warm spawns of the last ten:\n"
        "from the request until the child has started. WHY counts the reasons of cold spawns, or\n"
        "shows the last line of a template that does not start. A daemon that ends is waited for.\n"
        "Where standard output is no terminal one plain table is printed, after a second; its\n"
        "percentiles are of the time since the daemon started.\n"
        "Exit status: 0; 3 no daemon runs; 1 the board cannot be read.");

    try {
        app.parse(argc, argv);
    } catch (const CLI::ParseError& error) {
        return app.exit(error) == 0 ? 0 : kNotUnderstood;
    }
    if (*run_command) return run_one(run);
    if (*explain_command) return explain(question);
    if (*doctor_command) return examine(doctor);
    if (*status_command) return show_status(status);
    if (*top_command) return show_top(top);
    if (*profile_command)
        return start_python({"-m", "warmfork.profile"}, profile_command->remaining());
    // As a script, which is how programs that use multiprocessing are started.
    return start_python({"/warmfork/bench/__main__.py"}, bench_command->remaining());
}
