/* A process that is parked on its standard input and says when it was woken: the least that any hand-off
 * costs. Prints one byte when it is parked, then the time of CLOCK_MONOTONIC in nanoseconds. */
#include <stdio.h>
#include <time.h>
#include <unistd.h>

int main(void) {
    char byte;
    struct timespec time;
    if (write(1, "p", 1) != 1 || read(0, &byte, 1) != 1) return 1;
    clock_gettime(CLOCK_MONOTONIC, &time);
    char text[32];
    int size = snprintf(text, sizeof text, "%lld",
                        (long long)time.tv_sec * 1000000000 + time.tv_nsec);
    return write(1, text, (size_t)size) == size ? 0 : 1;
}
