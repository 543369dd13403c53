/* A malloc with one lock, which its own fork handlers hold around a fork, as many allocators do.
 * Whoever allocates meanwhile would wait for ever; here it is told, and ended. */
#include <pthread.h>
#include <stddef.h>
#include <stdlib.h>
#include <unistd.h>

void *__libc_malloc(size_t);
void *__libc_calloc(size_t, size_t);
void *__libc_realloc(void *, size_t);
void *__libc_memalign(size_t, size_t);
void __libc_free(void *);

static volatile int is_locked;

static void lock(void) { is_locked = 1; }
static void unlock(void) { is_locked = 0; }

__attribute__((constructor)) static void register_handlers(void) {
    pthread_atfork(lock, unlock, unlock);
}

static void take_lock(void) {
    static const char text[] = "malloc was called while its fork handler held the lock\n";
    if (!is_locked) return;
    if (write(2, text, sizeof text - 1) < 0) _exit(98);
    _exit(99);
}

void *malloc(size_t size) {
    take_lock();
    return __libc_malloc(size);
}

void *calloc(size_t count, size_t size) {
    take_lock();
    return __libc_calloc(count, size);
}

void *realloc(void *memory, size_t size) {
    take_lock();
    return __libc_realloc(memory, size);
}

void *memalign(size_t alignment, size_t size) {
    take_lock();
    return __libc_memalign(alignment, size);
}

void *aligned_alloc(size_t alignment, size_t size) { return memalign(alignment, size); }

int posix_memalign(void **ret_memory, size_t alignment, size_t size) {
    *ret_memory = memalign(alignment, size);
    return *ret_memory ? 0 : 12;
}

void free(void *memory) {
    take_lock();
    __libc_free(memory);
}
