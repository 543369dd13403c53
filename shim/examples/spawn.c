/* A C program that owns a Python template and spawns three children from it.
 *
 *   cc spawn.c $(pkg-config --cflags --libs warmfork)
 */
#include <stdio.h>
#include <sys/wait.h>
#include <warmfork.h>

static int say(const struct warmfork_failure *failure) {
    fprintf(stderr, "%s: %s\n", warmfork_stage_name(failure->stage), failure->text);
    return 1;
}

/* Spawns one child and waits for it; 0 if it ended well. */
static int spawn(warmfork_template *python, const char *number) {
    const char *const arguments[] = {
        "python3", "-c", "import json, os, sys; print(json.dumps([sys.argv, os.getppid()]))", number,
        NULL};
    struct warmfork_request request;
    warmfork_request_init(&request);
    request.arguments = arguments;

    struct warmfork_failure failure;
    warmfork_process *process;
    if (warmfork_spawn(python, &request, &process, &failure)) return say(&failure);
    int status;
    const int error = warmfork_process_wait(process, 0, &status, NULL);
    const char *reason;
    warmfork_process_reason(process, &reason);
    printf("%s %s\n", warmfork_backend_name(warmfork_process_backend(process)), reason);
    warmfork_process_free(process);
    return error || !WIFEXITED(status) || WEXITSTATUS(status) != 0;
}

int main(void) {
    const char *const modules[] = {"json", NULL};
    struct warmfork_template_options options;
    warmfork_template_options_init(&options);
    options.python = "python3";
    options.preload = modules;

    struct warmfork_failure failure;
    warmfork_template *python;
    if (warmfork_template_open(&options, &python, &failure)) return say(&failure);
    int failed = 0;
    if (warmfork_template_wait_ready(python, -1, &failure))
        failed = say(&failure);
    else
        failed = spawn(python, "1") || spawn(python, "2") || spawn(python, "3");
    warmfork_template_close(python);
    return failed;
}
