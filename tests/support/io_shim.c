/* Stands between a program and libc (LD_PRELOAD, Linux) and makes file operations fail, for tests of what SQLite does then.
 *
 * HOLDFAST_SHIM_OPS      which operations: any of "sync", "write", "truncate", "unlink", joined by commas
 * HOLDFAST_SHIM_PATH     only files whose path contains this text
 * HOLDFAST_SHIM_END      only files whose path ends with this text
 * HOLDFAST_SHIM_NTH      which of them, counted from 1; 0 counts and never fails
 * HOLDFAST_SHIM_LASTING  if set, all later ones too
 * HOLDFAST_SHIM_ACTION   an errno, "kill" (SIGKILL before the operation), or "short" (half of a write)
 * HOLDFAST_SHIM_ARM      if set, nothing is counted until a file of this name exists
 * HOLDFAST_SHIM_COUNT    a file that receives the count, as text
 */
#define _GNU_SOURCE
#include <dlfcn.h>
#include <errno.h>
#include <fcntl.h>
#include <signal.h>
#include <stdio.h>
#include <stdlib.h>
#include <string.h>
#include <sys/syscall.h>
#include <unistd.h>

static long counted;

static void publish(long count) {
    const char *name = getenv("HOLDFAST_SHIM_COUNT");
    if (!name) return;
    char text[32];
    int length = snprintf(text, sizeof text, "%ld\n", count);
    long fd = syscall(SYS_openat, AT_FDCWD, name, O_WRONLY | O_CREAT, 0600);
    if (fd < 0) return;
    syscall(SYS_pwrite64, fd, text, length, 0);
    syscall(SYS_close, fd);
}

/* 0: go on; -1: fail with errno; 1: write half. */
static int judge_path(const char *op, const char *path) {
    const char *ops = getenv("HOLDFAST_SHIM_OPS");
    if (!ops || !strstr(ops, op)) return 0;
    const char *arm = getenv("HOLDFAST_SHIM_ARM");
    if (arm && syscall(SYS_access, arm, F_OK) != 0) return 0;
    const char *part = getenv("HOLDFAST_SHIM_PATH");
    if (part && !strstr(path, part)) return 0;
    const char *end = getenv("HOLDFAST_SHIM_END");
    if (end && (strlen(path) < strlen(end) || strcmp(path + strlen(path) - strlen(end), end) != 0)) return 0;
    long count = __sync_add_and_fetch(&counted, 1);
    publish(count);
    const char *nth_text = getenv("HOLDFAST_SHIM_NTH");
    long nth = nth_text ? atol(nth_text) : 0;
    if (nth == 0 || count < nth || (count > nth && !getenv("HOLDFAST_SHIM_LASTING"))) return 0;
    const char *action = getenv("HOLDFAST_SHIM_ACTION");
    if (!action) return 0;
    if (strcmp(action, "kill") == 0) {
        syscall(SYS_kill, getpid(), SIGKILL);
        for (;;) pause();
    }
    if (strcmp(action, "short") == 0) return 1;
    errno = atoi(action);
    return -1;
}

static int judge(const char *op, int fd) {
    char link[64], path[4096];
    snprintf(link, sizeof link, "/proc/self/fd/%d", fd);
    ssize_t length = readlink(link, path, sizeof path - 1);
    if (length < 0) return 0;
    path[length] = 0;
    return judge_path(op, path);
}

#define REAL(type, name) \
    static type real; \
    if (!real) real = (type)dlsym(RTLD_NEXT, name)

typedef int (*sync_fn)(int);
int fsync(int fd) {
    REAL(sync_fn, "fsync");
    return judge("sync", fd) < 0 ? -1 : real(fd);
}
int fdatasync(int fd) {
    REAL(sync_fn, "fdatasync");
    return judge("sync", fd) < 0 ? -1 : real(fd);
}

typedef ssize_t (*write_fn)(int, const void *, size_t);
ssize_t write(int fd, const void *bytes, size_t count) {
    REAL(write_fn, "write");
    int verdict = judge("write", fd);
    return verdict < 0 ? -1 : real(fd, bytes, verdict > 0 && count > 1 ? count / 2 : count);
}

typedef ssize_t (*pwrite_fn)(int, const void *, size_t, off_t);
ssize_t pwrite(int fd, const void *bytes, size_t count, off_t at) {
    REAL(pwrite_fn, "pwrite");
    int verdict = judge("write", fd);
    return verdict < 0 ? -1 : real(fd, bytes, verdict > 0 && count > 1 ? count / 2 : count, at);
}
typedef ssize_t (*pwrite64_fn)(int, const void *, size_t, off64_t);
ssize_t pwrite64(int fd, const void *bytes, size_t count, off64_t at) {
    REAL(pwrite64_fn, "pwrite64");
    int verdict = judge("write", fd);
    return verdict < 0 ? -1 : real(fd, bytes, verdict > 0 && count > 1 ? count / 2 : count, at);
}

typedef int (*ftruncate_fn)(int, off_t);
int ftruncate(int fd, off_t size) {
    REAL(ftruncate_fn, "ftruncate");
    return judge("truncate", fd) < 0 ? -1 : real(fd, size);
}
typedef int (*ftruncate64_fn)(int, off64_t);
int ftruncate64(int fd, off64_t size) {
    REAL(ftruncate64_fn, "ftruncate64");
    return judge("truncate", fd) < 0 ? -1 : real(fd, size);
}

typedef int (*unlink_fn)(const char *);
int unlink(const char *path) {
    REAL(unlink_fn, "unlink");
    return judge_path("unlink", path) < 0 ? -1 : real(path);
}
