// Makes every fsync and fdatasync cost SLOWSYNC_US microseconds more, to see a design on a disk whose flush is real
// (a laptop's SSD: 500 to 5000; a spinning disk: 8000 to 15000). Compiled and preloaded by run.mjs.
// Reaches programs that sync through libc (Node, the peers, the addon), not one that makes the system call itself.
#define _GNU_SOURCE
#include <dlfcn.h>
#include <stdlib.h>
#include <time.h>

static void pause_after_sync(void) {
  static long us = -1;
  if (us < 0) {
    const char *text = getenv("SLOWSYNC_US");
    us = text ? atol(text) : 0;
  }
  if (us > 0) {
    struct timespec time = {us / 1000000, (us % 1000000) * 1000};
    nanosleep(&time, 0);
  }
}

#define SLOW(name)                               \
  int name(int fd) {                             \
    static int (*real)(int);                     \
    if (!real) real = dlsym(RTLD_NEXT, #name);   \
    int result = real(fd);                       \
    pause_after_sync();                          \
    return result;                               \
  }
SLOW(fsync)
SLOW(fdatasync)
