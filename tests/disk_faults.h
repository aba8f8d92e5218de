/* disk_faults.h - the file calls of the program that includes this, replaced: the one that `plan` names is killed,
 * refused or cut short. SPDX-License-Identifier: Apache-2.0 */
#ifndef DISK_FAULTS_H
#define DISK_FAULTS_H

#include <dlfcn.h>
#include <errno.h>
#include <fcntl.h>
#include <signal.h>
#include <stdarg.h>
#include <stdbool.h>
#include <stdio.h>
#include <sys/types.h>

typedef enum fault { NONE, KILL_BEFORE, KILL_AFTER, ERROR, SHORT } fault;

static _Thread_local struct { /* of the thread that saves: others read films meanwhile */
    fault what;
    int at;     /* this call is hit, counted from 1 */
    int errnum; /* of an ERROR */
    int calls;
    const char *hit; /* the name of the call that was hit */
} plan;

static bool hit(const char *name)
{
    if (plan.what == NONE || ++plan.calls != plan.at) return false;
    plan.hit = name;
    if (plan.what == KILL_BEFORE) raise(SIGKILL);
    return true;
}

static void after(bool was_hit)
{
    if (was_hit && plan.what == KILL_AFTER) raise(SIGKILL);
}

/* The call as it is, unless it is the one that fails. */
#define PASS(type, name, parameters, arguments)                                                                        \
    type name parameters                                                                                               \
    {                                                                                                                  \
        static type(*real) parameters;                                                                                 \
        if (!real) *(void **)&real = dlsym(RTLD_NEXT, #name);                                                          \
        bool now = hit(#name);                                                                                         \
        if (now && plan.what == ERROR) {                                                                               \
            errno = plan.errnum;                                                                                       \
            return -1;                                                                                                 \
        }                                                                                                              \
        type result = real arguments;                                                                                  \
        after(now);                                                                                                    \
        return result;                                                                                                 \
    }

PASS(int, fsync, (int fd), (fd))
PASS(int, rename, (const char *from, const char *to), (from, to))

int open(const char *path, int flags, ...)
{
    static int (*real)(const char *, int, ...);
    va_list args;
    va_start(args, flags);
    mode_t mode = flags & O_CREAT ? va_arg(args, mode_t) : 0;
    va_end(args);
    if (!real) *(void **)&real = dlsym(RTLD_NEXT, "open");
    bool now = hit("open");
    if (now && plan.what == ERROR) {
        errno = plan.errnum;
        return -1;
    }
    int fd = real(path, flags, mode);
    after(now);
    return fd;
}

/* A descriptor is gone even when close complains. */
int close(int fd)
{
    static int (*real)(int);
    if (!real) *(void **)&real = dlsym(RTLD_NEXT, "close");
    bool now = hit("close");
    int result = real(fd);
    after(now);
    if (!now || plan.what != ERROR) return result;
    errno = plan.errnum;
    return -1;
}

ssize_t write(int fd, const void *bytes, size_t n)
{
    static ssize_t (*real)(int, const void *, size_t);
    if (!real) *(void **)&real = dlsym(RTLD_NEXT, "write");
    bool now = hit("write");
    if (now && plan.what == ERROR) {
        errno = plan.errnum;
        return -1;
    }
    ssize_t done = real(fd, bytes, now && plan.what != ERROR ? (n + 1) / 2 : n);
    after(now);
    return done;
}

#endif
