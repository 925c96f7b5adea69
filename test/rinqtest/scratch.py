"""One temporary folder and the processes that live under it.

Everything a test run creates hangs on a Scratch: its folder is removed and its processes are stopped when it is
closed, when the interpreter exits, and, through a small watchdog process that holds the other end of a pipe, also
when this process is killed outright.
"""

import atexit
import os
import pwd
import random
import shutil
import signal
import socket
import subprocess
import sys
import tempfile

_WATCHDOG = r"""
import os, shutil, signal, sys, time
for number in (signal.SIGINT, signal.SIGTERM, signal.SIGHUP):
    signal.signal(number, signal.SIG_IGN)
folder, groups = sys.argv[1], set()
for line in sys.stdin:
    word, number = line.split()
    (groups.add if word == "add" else groups.discard)(int(number))
def inside():
    found = []
    for name in os.listdir("/proc"):
        if name.isdigit() and int(name) != os.getpid():
            try:
                cwd = os.readlink("/proc/%s/cwd" % name)
            except OSError:
                continue
            if cwd == folder or cwd.startswith(folder + "/"):
                found.append(int(name))
    return found
def send(number):
    for group in groups:
        try:
            os.killpg(group, number)
        except OSError:
            pass
    for pid in inside():
        try:
            os.kill(pid, number)
        except OSError:
            pass
if os.path.isdir(folder):
    send(signal.SIGQUIT)
    limit = time.monotonic() + 3
    while inside() and time.monotonic() < limit:
        time.sleep(0.05)
    send(signal.SIGKILL)
    shutil.rmtree(folder, ignore_errors=True)
"""


def unprivileged_user():
    """The account to run PostgreSQL as when we are root; None when we are not root."""
    if os.geteuid() != 0:
        return None
    for name in ("postgres", "nobody"):
        try:
            return pwd.getpwnam(name)
        except KeyError:
            continue
    raise RuntimeError("no unprivileged account (postgres or nobody) to run PostgreSQL as")


_reservations = []


def random_port():
    """One that the system does not give to outgoing connections: while a server is down, one of these could take its port."""
    return random.randrange(15000, 32000)


def free_port():
    """A TCP port on loopback that is free now, and that no test of this machine was given before, as long as its process lives.

    What reserves it from other test/run, and from this one, is the UDP port of the same number: the system gives it back in any case.
    """
    while True:
        port = random_port()
        reservation = socket.socket(socket.AF_INET, socket.SOCK_DGRAM)
        with socket.socket() as probe:
            try:
                reservation.bind(("127.0.0.1", port))
                probe.bind(("127.0.0.1", port))
            except OSError:
                reservation.close()
                continue
        _reservations.append(reservation)
        return port


def available_memory():
    """Bytes that programs can have without anything being written to a disk for them; 0 when that is not known."""
    try:
        with open("/proc/meminfo") as lines:
            return next(int(line.split()[1]) << 10 for line in lines if line.startswith("MemAvailable:"))
    except (OSError, StopIteration):
        return 0


def temporary_base(memory="/dev/shm", needed=8 << 30):
    """Where temporary folders are made: in memory, if there is plenty, since each database that a test makes is some 300 files."""
    chosen = os.environ.get("RINQ_TMPDIR")
    if chosen:
        return chosen
    try:
        space = os.statvfs(memory)
    except OSError:
        return "/tmp"
    usable = os.access(memory, os.W_OK) and not space.f_flag & (os.ST_NOEXEC | os.ST_RDONLY)
    return memory if usable and min(space.f_bavail * space.f_frsize, available_memory()) >= needed else "/tmp"


class Scratch:
    """A temporary folder, readable by the unprivileged account, with the processes started for it."""

    def __init__(self, prefix="rinq-"):
        self.folder = os.path.realpath(tempfile.mkdtemp(prefix=prefix, dir=temporary_base()))
        os.chmod(self.folder, 0o755)
        self.user = unprivileged_user()
        self._groups = {}
        self._closed = False
        self._watchdog = subprocess.Popen(
            [sys.executable, "-c", _WATCHDOG, self.folder], stdin=subprocess.PIPE, text=True,
            start_new_session=True, cwd="/", stdout=subprocess.DEVNULL, stderr=subprocess.DEVNULL)
        atexit.register(self.close)

    def path(self, *parts):
        return os.path.join(self.folder, *parts)

    def make_folder(self, *parts, private=False, owned=False):
        """Create a folder; private is mode 0700, owned gives it to the unprivileged account."""
        folder = self.path(*parts)
        os.makedirs(folder, exist_ok=True)
        os.chmod(folder, 0o700 if private else 0o755)
        if owned and self.user is not None:
            os.chown(folder, self.user.pw_uid, self.user.pw_gid)
        return folder

    def identity(self):
        """Arguments for subprocess that drop root's privileges, where there are any to drop."""
        if self.user is None:
            return {}
        return {"user": self.user.pw_uid, "group": self.user.pw_gid, "extra_groups": []}

    def spawn(self, argv, unprivileged=False, end_with=signal.SIGKILL, **options):
        """Start a long-lived process in a process group of its own and remember it; end_with stops it at the end."""
        if unprivileged:
            options.update(self.identity())
        options.setdefault("stdin", subprocess.DEVNULL)
        process = subprocess.Popen(argv, start_new_session=True, **options)
        self._groups[process.pid] = (process, end_with)
        self._tell("add", process.pid)
        return process

    def forget(self, process):
        """The process has ended and was waited for: never signal its number again."""
        if self._groups.pop(process.pid, None) is not None:
            self._tell("del", process.pid)

    def run(self, argv, unprivileged=False, **options):
        """Run a short command to its end; its output is part of the error when it fails."""
        if unprivileged:
            options.update(self.identity())
        options.setdefault("timeout", 120)
        options.setdefault("check", True)
        check = options.pop("check")
        done = subprocess.run(argv, stdin=subprocess.DEVNULL, stdout=subprocess.PIPE, stderr=subprocess.STDOUT,
                              text=True, errors="replace", **options)
        if check and done.returncode != 0:
            raise RuntimeError("%s: exit status %d\n%s" % (" ".join(argv), done.returncode, done.stdout))
        return done

    def close(self):
        if self._closed:
            return
        self._closed = True
        for process, number in list(self._groups.values()):
            self._end(process, number)
        atexit.unregister(self.close)
        # the watchdog does the rest: stragglers and the folder
        try:
            self._watchdog.stdin.close()
            self._watchdog.wait(timeout=20)
        except (OSError, subprocess.TimeoutExpired):
            self._watchdog.kill()
        shutil.rmtree(self.folder, ignore_errors=True)

    def _end(self, process, first):
        for number, patience in ((first, 3), (signal.SIGKILL, 10)):
            if process.poll() is None:
                try:
                    os.killpg(process.pid, number)
                    process.wait(timeout=patience)
                except ProcessLookupError:
                    break
                except subprocess.TimeoutExpired:
                    continue
        process.poll()
        self.forget(process)

    def _tell(self, word, number):
        try:
            self._watchdog.stdin.write("%s %d\n" % (word, number))
            self._watchdog.stdin.flush()
        except OSError:
            pass

    def __enter__(self):
        return self

    def __exit__(self, *_):
        self.close()


class Stopped(SystemExit, KeyboardInterrupt):
    """A signal asks this program to end.  It is a KeyboardInterrupt because unittest takes any other exception for the failure of one test."""


def exit_on_signals():
    """Turn the first SIGTERM, SIGHUP or SIGINT into an exception that ends the program, so that clean-up runs as after an error, and to its end."""
    numbers = (signal.SIGTERM, signal.SIGHUP, signal.SIGINT)

    def leave(number, _frame):
        for other in numbers:
            signal.signal(other, signal.SIG_IGN)
        raise Stopped(128 + number)
    for number in numbers:
        signal.signal(number, leave)
