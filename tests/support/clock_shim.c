/* Stands between a program and libc (LD_PRELOAD, Linux) and sets its wall clock off by HOLDFAST_CLOCK_SECONDS; time that has passed is measured
 * as ever. */
#define _GNU_SOURCE
#include <dlfcn.h>
#include <stdlib.h>
#include <time.h>

int clock_gettime(clockid_t id, struct timespec *time) {
    static int (*real)(clockid_t, struct timespec *);
    if (!real) real = (int (*)(clockid_t, struct timespec *))dlsym(RTLD_NEXT, "clock_gettime");
    int result = real(id, time);
    const char *text = getenv("HOLDFAST_CLOCK_SECONDS");
    if (result == 0 && text && (id == CLOCK_REALTIME || id == CLOCK_REALTIME_COARSE)) time->tv_sec += atol(text);
    return result;
}
