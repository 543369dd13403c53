/* A library that registers fork handlers when it is loaded, for the tests to load in awkward ways. */
#include <pthread.h>

static void do_nothing(void) {}

__attribute__((constructor)) static void register_handlers(void) {
    pthread_atfork(do_nothing, do_nothing, do_nothing);
}
