"""A wall clock that a test can step, for the processes of one server."""

import ctypes
import mmap
import os
import struct
import subprocess

# gettimeofday, time and clock_gettime(CLOCK_REALTIME) tell a time that is shifted by what a mapped file says;
# the monotonic clock is left alone
_SHIM = r"""
#define _GNU_SOURCE
#include <dlfcn.h>
#include <fcntl.h>
#include <stdlib.h>
#include <sys/mman.h>
#include <sys/syscall.h>
#include <sys/time.h>
#include <time.h>
#include <unistd.h>

static volatile long long *seconds;

__attribute__((constructor)) static void attach(void)
{
    const char *path = getenv("RINQTEST_CLOCK");
    int fd = path == NULL ? -1 : open(path, O_RDONLY);
    void *map = fd < 0 ? MAP_FAILED : mmap(NULL, sizeof(*seconds), PROT_READ, MAP_SHARED, fd, 0);

    if (map != MAP_FAILED)
        seconds = map;
    if (fd >= 0)
        close(fd);
}

int clock_gettime(clockid_t clock, struct timespec *now)
{
    int result = (int) syscall(SYS_clock_gettime, clock, now);

    if (result == 0 && seconds != NULL && (clock == CLOCK_REALTIME || clock == CLOCK_REALTIME_COARSE))
        now->tv_sec += *seconds;
    return result;
}

int gettimeofday(struct timeval *restrict now, void *restrict zone)
{
    struct timespec exact;
    int result = clock_gettime(CLOCK_REALTIME, &exact);

    (void) zone;
    now->tv_sec = exact.tv_sec;
    now->tv_usec = exact.tv_nsec / 1000;
    return result;
}

time_t time(time_t *at)
{
    struct timespec now;

    clock_gettime(CLOCK_REALTIME, &now);
    if (at != NULL)
        *at = now.tv_sec;
    return now.tv_sec;
}
"""


class WallClock:
    """environment: what the server needs to see this clock instead of the machine's."""

    def __init__(self, scratch, environment=None):
        folder = scratch.make_folder("clock", owned=True)
        source, shim, self._path = (os.path.join(folder, name) for name in ("clock.c", "clock.so", "offset"))
        with open(source, "w") as file:
            file.write(_SHIM)
        subprocess.run(["gcc", "-shared", "-fPIC", "-O2", "-o", shim, source, "-ldl"], check=True)
        with open(self._path, "wb") as file:
            file.write(struct.pack("q", 0))
        os.chmod(self._path, 0o644)
        with open(self._path, "r+b") as file:
            self._map = mmap.mmap(file.fileno(), 8)
        self._offset = ctypes.c_longlong.from_buffer(self._map)
        self.environment = dict(environment or {}, RINQTEST_CLOCK=self._path)
        before = self.environment.get("LD_PRELOAD")
        self.environment["LD_PRELOAD"] = before + ":" + shim if before else shim

    def step(self, seconds):
        """Set the clock so far ahead of the machine's, or behind it."""
        self._offset.value = seconds
