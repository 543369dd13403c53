/* A client of the service that does as it is told, one command a line: for check-service and
 * check-kernel.
 *
 *     run CODE          spawns a Python child that exits with CODE, and waits for it
 *     start [FILE]      spawns one that sleeps, or exits with 23 when the file is there
 *     start-detached    the same, outliving this client
 *     orphan            spawns one that leaves a sleeping process behind, in a session of its own
 *     fill MEGABYTES    spawns one that fills so much memory and exits, and waits for it
 *     hold MEGABYTES    spawns one that fills so much memory and sleeps
 *     spin PROCESSOR    spawns one that keeps that processor busy
 *     fork COUNT        spawns one that has so many children at once, and waits for it: what it
 *                       exits with is 0, or the errno of the fork that failed
 *     wait              waits for the one that was started
 *     quit              exits, whatever runs
 *
 * Each answers with a line: what became of it, how it was started, the child's pid.
 */
#include <stdio.h>
#include <stdlib.h>
#include <string.h>
#include <sys/wait.h>
#include <unistd.h>
#include <warmfork.h>

static warmfork_template* template;
static warmfork_process* started;

static warmfork_process* spawn(const char* program, const char* argument, unsigned flags) {
    const char* const arguments[] = {"python3", "-c", program, argument, NULL};
    struct warmfork_request request;
    warmfork_request_init(&request);
    request.arguments = arguments;
    request.flags |= flags;
    struct warmfork_failure failure;
    warmfork_process* process = NULL;
    if (warmfork_spawn(template, &request, &process, &failure))
        printf("failed %s: %s\n", warmfork_stage_name(failure.stage), failure.text);
    return process;
}

static void say(const char* what, int number, warmfork_process* process) {
    const char* reason;
    warmfork_process_reason(process, &reason);
    printf("%s %d %s %d %s\n", what, number,
           warmfork_backend_name(warmfork_process_backend(process)),
           (int)warmfork_process_pid(process), reason);
}

static void await(warmfork_process* process) {
    int status = 0;
    const int error = warmfork_process_wait(process, 0, &status, NULL);
    if (error)
        say(strerror(-error), -error, process);
    else if (WIFEXITED(status))
        say("exited", WEXITSTATUS(status), process);
    else
        say("killed", WTERMSIG(status), process);
}

static void run(const char* program, const char* argument) {
    warmfork_process* process = spawn(program, argument, 0);
    if (process) await(process);
    warmfork_process_free(process);
}

static void start(const char* program, const char* argument, unsigned flags) {
    started = spawn(program, argument, flags);
    if (started) say("started", 0, started);
}

static const char sleep_until[] =
    "import os, sys, time\n"
    "while not os.path.exists(sys.argv[1]): time.sleep(0.02)\n"
    "sys.exit(23)";
static const char leave_behind[] =
    "import subprocess\n"
    "subprocess.Popen(['sleep', '31536000'], start_new_session=True)";
static const char fill[] =
    "import sys\n"
    "data = b'x' * (int(sys.argv[1]) << 20)";
static const char hold[] =
    "import sys, time\n"
    "data = b'x' * (int(sys.argv[1]) << 20)\n"
    "time.sleep(31536000)";
static const char spin[] =
    "import os, sys\n"
    "os.sched_setaffinity(0, [int(sys.argv[1])])\n"
    "while True: pass";
static const char fork_often[] =
    "import os, signal, sys, time\n"
    "children, status = [], 0\n"
    "try:\n"
    "    for _ in range(int(sys.argv[1])):\n"
    "        children.append(os.fork())\n"
    "        if not children[-1]: time.sleep(31536000)\n"
    "except OSError as error:\n"
    "    status = error.errno\n"
    "for child in children: os.kill(child, signal.SIGKILL)\n"
    "for child in children: os.waitpid(child, 0)\n"
    "sys.exit(status)";

int main(int argc, char** argv) {
    setvbuf(stdout, NULL, _IOLBF, 0);
    struct warmfork_failure failure;
    if (argc < 2 ||
        warmfork_template_connect(argv[1], WARMFORK_BACKEND_AUTO, &template, &failure)) {
        printf("failed %s: %s\n", warmfork_stage_name(failure.stage), failure.text);
        return 1;
    }
    char line[512], word[32], argument[256];
    while (fgets(line, sizeof line, stdin)) {
        word[0] = argument[0] = 0;
        sscanf(line, "%31s %255s", word, argument);
        if (strcmp(word, "run") == 0) {
            run("import sys; sys.exit(int(sys.argv[1]))", argument);
        } else if (strcmp(word, "orphan") == 0) {
            run(leave_behind, "");
        } else if (strcmp(word, "fill") == 0) {
            run(fill, argument);
        } else if (strcmp(word, "fork") == 0) {
            run(fork_often, argument);
        } else if (strcmp(word, "hold") == 0) {
            start(hold, argument, 0);
        } else if (strcmp(word, "spin") == 0) {
            start(spin, argument, 0);
        } else if (strcmp(word, "start") == 0) {
            start(sleep_until, argument[0] ? argument : "/nowhere", 0);
        } else if (strcmp(word, "start-detached") == 0) {
            start(sleep_until, argument[0] ? argument : "/nowhere", WARMFORK_DETACHED);
        } else if (strcmp(word, "wait") == 0) {
            await(started);
        } else {
            _exit(0);
        }
    }
    return 0;
}
