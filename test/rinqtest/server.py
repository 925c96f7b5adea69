"""A throwaway PostgreSQL server with the extension preloaded, and ways to talk to it through psql."""

import itertools
import json
import os
import queue
import re
import shutil
import signal
import subprocess
import threading
import time

from . import versions
from .scratch import free_port
from .versions import pg_config
from .waiting import wait_until

_NULL = "\x02"
_FIELD = "\x1f"
_SETTINGS = {
    "listen_addresses": "''",
    "fsync": "off",
    "full_page_writes": "off",
    "shared_buffers": "'32MB'",
    "max_connections": "100",
    "max_worker_processes": "40",
    "max_prepared_transactions": "10",
    "log_line_prefix": "'%m [%p] %b %d '",
    "timezone": "'UTC'",
    "lc_messages": "'C'",
}


class SqlError(Exception):
    """An error that psql reported, with its SQLSTATE and parts."""

    def __init__(self, text):
        super().__init__(text.strip())
        self.text = text
        found = re.findall(r"(?:^|: )(?:ERROR|FATAL|PANIC):  ([0-9A-Z]{5}): (.*)", text, re.M)
        self.sqlstate, self.message = found[-1] if found else (None, text.strip())
        self.detail = self._part("DETAIL")
        self.hint = self._part("HINT")

    def _part(self, name):
        found = re.findall(r"^%s:  (.*)" % name, self.text, re.M)
        return found[-1] if found else None


def quote(value):
    """An SQL literal of a Python value; dict and list become jsonb."""
    if value is None:
        return "NULL"
    if isinstance(value, bool):
        return "true" if value else "false"
    if isinstance(value, (int, float)):
        return repr(value)
    if isinstance(value, bytes):
        return "'\\x%s'::bytea" % value.hex()
    if isinstance(value, (dict, list)):
        return quote(json.dumps(value)) + "::jsonb"
    return "'" + str(value).replace("'", "''") + "'"


def _rows(text):
    if text == "":
        return []
    return [[None if field == _NULL else field for field in line.split(_FIELD)] for line in text.rstrip("\n").split("\n")]


def _stat(pid):
    """What the kernel says of a process, behind its name."""
    with open("/proc/%s/stat" % pid) as file:
        return file.read().rpartition(")")[2].split()


def _runs(pid):
    """A process that has ended and was not waited for does not run."""
    try:
        return _stat(pid)[0] not in "ZX"
    except (FileNotFoundError, ProcessLookupError):
        return False


def processor_ticks(pid):
    """Processor time of a process, as the kernel counts it, 100 a second."""
    return sum(int(ticks) for ticks in _stat(pid)[11:13])


class Server:
    """One cluster. stage: the folder the extension was installed into (DESTDIR), None when it is in the system's.

    command: the pg_config of its PostgreSQL, None for the one that is tested; bindir: where its programs are, if not where that says.
    """

    def __init__(self, scratch, stage=None, name="server", preload=True, settings=None, environment=None, command=None, bindir=None):
        self.scratch = scratch
        self.stage = stage
        self.command = command
        self.bindir = bindir or pg_config("--bindir", command)
        self.port = free_port()
        self.data = scratch.path(name, "data")
        self.socket_folder = scratch.make_folder(name, owned=True)
        self.log_path = scratch.path(name, "log")
        self.environment = environment or {}
        self.settings = dict(_SETTINGS, unix_socket_directories="'%s'" % self.socket_folder, port=str(self.port))
        if stage is not None:
            self.settings.update(versions.stage_settings(stage, command))
        if preload:
            self.settings["shared_preload_libraries"] = "'rinq'"
        self.settings.update(settings or {})
        self._process = None
        self._numbers = itertools.count(1)
        self._initialise()

    def _initialise(self):
        name = "initdb-%d" % versions.postgresql(self.command)
        template = self.scratch.path(name)
        if not os.path.isdir(template):
            folder = self.scratch.make_folder(name, owned=True, private=True)
            self.scratch.run([self.tool("initdb"), "--no-sync", "-A", "trust", "-U", "postgres", "-E", "UTF8",
                              "--locale", "C.UTF-8", *versions.initdb_options(self.command), "-D", folder], unprivileged=True, cwd="/")
        self.scratch.run(["cp", "-a", template, self.data], unprivileged=True, cwd="/")
        os.chmod(self.data, 0o700)
        self._write_settings()

    def _write_settings(self):
        path = os.path.join(self.data, "postgresql.auto.conf")
        with open(path + ".new", "w") as file:
            for name, value in self.settings.items():
                file.write("%s = %s\n" % (name, value))
        # it takes the place of the old one at once: a process may be reading that, because of the change before
        before = os.stat(path)
        shutil.copymode(path, path + ".new")
        os.chown(path + ".new", before.st_uid, before.st_gid)
        os.replace(path + ".new", path)

    def make_standby(self, name, settings=None):
        """A copy that follows this server once it is started, with its settings and more."""
        same = {key: value for key, value in self.settings.items() if key not in ("port", "unix_socket_directories")}
        standby = Server(self.scratch, self.stage, name=name, settings=dict(same, **(settings or {})), environment=self.environment)
        shutil.rmtree(standby.data)
        self.scratch.run([self.tool("pg_basebackup"), "-D", standby.data, "-c", "fast", "-X", "fetch", "-h", self.socket_folder,
                          "-p", str(self.port), "-U", "postgres"], unprivileged=True, cwd="/")
        standby._write_settings()
        self.scratch.run(["touch", os.path.join(standby.data, "standby.signal")], unprivileged=True, cwd="/")
        return standby

    def upgrade(self, old, *options):
        """Take over what a server of the same or an older version has, which is stopped, with pg_upgrade."""
        folder = self.scratch.make_folder(os.path.basename(os.path.dirname(self.data)), "upgrade", owned=True)
        self.scratch.run([self.tool("pg_upgrade"), "-b", old.bindir, "-B", self.bindir, "-d", old.data, "-D", self.data, "-U", "postgres",
                          "-s", self.socket_folder, "-p", str(old.port), "-P", str(self.port), *options],
                         unprivileged=True, cwd=folder, timeout=300, env=self.base_environment())
        return self

    def tool(self, name):
        return os.path.join(self.bindir, name)

    # life cycle

    def start(self, timeout=30):
        with open(self.log_path, "ab") as log:
            self._process = self.scratch.spawn(
                [self.tool("postgres"), "-D", self.data], unprivileged=True, end_with=signal.SIGQUIT, cwd=self.data,
                stdout=log, stderr=log, env=dict(self.base_environment(), **self.environment))
        wait_until(self._accepts, timeout=timeout, description="PostgreSQL to start\n" + self.log_tail())
        return self

    def base_environment(self):
        keep = {key: value for key, value in os.environ.items() if not key.startswith("PG")}
        keep.update({"LC_ALL": "C.UTF-8", "PGHOST": self.socket_folder, "PGPORT": str(self.port), "PGUSER": "postgres",
                     "PGDATABASE": "postgres", "HOME": self.socket_folder})
        keep.pop("MAKEFLAGS", None)
        return keep

    def _accepts(self):
        if self._process.poll() is not None:
            raise RuntimeError("PostgreSQL ended with status %s" % self._process.returncode)
        return self.scratch.run([self.tool("psql"), "-XAtqc", "SELECT 1"], env=self.base_environment(), check=False,
                                cwd="/").returncode == 0

    @property
    def pid(self):
        return self._process.pid

    @property
    def running(self):
        return self._process is not None and self._process.poll() is None

    def stop(self, mode="fast", timeout=30):
        """smart, fast or immediate; an error when it takes longer than timeout."""
        number = {"smart": signal.SIGTERM, "fast": signal.SIGINT, "immediate": signal.SIGQUIT}[mode]
        self._process.send_signal(number)
        self._process.wait(timeout=timeout)
        self.scratch.forget(self._process)

    def kill(self):
        """kill -9 of the postmaster; its processes notice, and leave by themselves: until then it cannot be started again."""
        with open("/proc/%d/task/%d/children" % (self.pid, self.pid)) as file:
            children = file.read().split()
        self._process.kill()
        self._process.wait(timeout=10)
        self.scratch.forget(self._process)
        wait_until(lambda: not any(_runs(pid) for pid in children), timeout=20, description="the processes of a killed server to leave")

    def restart(self, mode="fast"):
        self.stop(mode)
        return self.start()

    def configure(self, reload=True, **settings):
        """Change settings (value None removes one; a double underscore stands for the dot) and reload."""
        for name, value in settings.items():
            name = name.replace("__", ".")
            if value is None:
                self.settings.pop(name, None)
            else:
                self.settings[name] = "'%s'" % str(value).replace("'", "''")
        self._write_settings()
        if reload and self.running:
            self.psql("SELECT pg_reload_conf()")

    # log

    def log_mark(self):
        return os.path.getsize(self.log_path) if os.path.exists(self.log_path) else 0

    def log_since(self, mark=0):
        if not os.path.exists(self.log_path):
            return ""
        with open(self.log_path, "rb") as file:
            file.seek(mark)
            return file.read().decode("utf-8", "replace")

    def log_tail(self, lines=40):
        return "\n".join(self.log_since().splitlines()[-lines:])

    def wait_log(self, pattern, since=0, timeout=10):
        return wait_until(lambda: re.search(pattern, self.log_since(since)), timeout=timeout,
                          description="%r in the server's log" % pattern)

    def crashes(self, since=0):
        """Lines of the log that tell of a crash."""
        signs = re.compile(r"terminated by signal|terminating any other active server processes|PANIC:|TRAP:|runtime error:|AddressSanitizer")
        return [line for line in self.log_since(since).splitlines() if signs.search(line)]

    # SQL

    def _psql_command(self, role, database):
        return [self.tool("psql"), "-XAtq", "-F", _FIELD, "-P", "null=" + _NULL, "-v", "VERBOSITY=verbose", "-U", role,
                "-d", database]

    def psql(self, sql, database="postgres", role="postgres", timeout=60):
        """Run statements in a connection of their own; the rows of all of them, fields as text, NULL as None."""
        return self.start_psql(sql, database, role).result(timeout)

    def start_psql(self, sql, database="postgres", role="postgres"):
        """The same without waiting: see Pending."""
        label = "rinqtest-%d-%d" % (os.getpid(), next(self._numbers))
        process = subprocess.Popen(self._psql_command(role, database) + ["-v", "ON_ERROR_STOP=1", "-c", sql], stdin=subprocess.DEVNULL,
                                   stdout=subprocess.PIPE, stderr=subprocess.PIPE, text=True, errors="replace", cwd="/",
                                   env=dict(self.base_environment(), PGAPPNAME=label))
        return Pending(self, process, label)

    def session(self, database="postgres", role="postgres"):
        return Session(self, self._psql_command(role, database))

    def value(self, sql, **where):
        rows = self.psql(sql, **where)
        return rows[0][0] if rows else None


class Pending:
    """A psql that is running."""

    def __init__(self, server, process, label):
        self.server = server
        self.process = process
        self.label = label
        self.started = time.monotonic()

    @property
    def done(self):
        return self.process.poll() is not None

    def result(self, timeout=60):
        try:
            out, err = self.process.communicate(timeout=timeout)
        except subprocess.TimeoutExpired:
            self.process.kill()
            self.process.communicate()
            raise AssertionError("psql did not end within %s s" % timeout) from None
        if self.process.returncode != 0:
            raise SqlError(err)
        return _rows(out)

    def error(self, timeout=60):
        """The error it ends with; an AssertionError when it succeeds."""
        try:
            rows = self.result(timeout)
        except SqlError as error:
            return error
        raise AssertionError("expected an error, got %r" % (rows,))

    def backend(self, timeout=10):
        """The process id of its backend once that executes something."""
        row = wait_until(lambda: self.server.psql(
            "SELECT pid FROM pg_stat_activity WHERE application_name = '%s' AND state = 'active'" % self.label),
            timeout=timeout, description="the backend of " + self.label)
        return int(row[0][0])

    def kill_client(self):
        """The client goes away without a word."""
        self.process.kill()
        self.process.communicate()


_NOTIFIED = re.compile('Asynchronous notification "([^"]*)" with payload "(.*)" received from server process with PID [0-9]+\\.$')


class Session:
    """One psql that stays connected: for transactions, settings, and precise timing."""

    def __init__(self, server, command):
        self.server = server
        self._errors = server.scratch.path("session-%d-%d" % (os.getpid(), id(self)))
        self._error_file = open(self._errors, "w+", errors="replace")
        self.process = subprocess.Popen(command, stdin=subprocess.PIPE, stdout=subprocess.PIPE, stderr=self._error_file,
                                        text=True, errors="replace", cwd="/", env=server.base_environment())
        self._lines = queue.Queue()
        self._number = 0
        self._mark = None
        self.notifications = []
        threading.Thread(target=self._read, daemon=True).start()
        self.pid = int(self.execute("SELECT pg_backend_pid()")[0][0])

    def _read(self):
        for line in self.process.stdout:
            self._lines.put(line)
        self._lines.put(None)

    def start(self, sql):
        """Send statements; finish() collects what they return."""
        self._number += 1
        self._mark = "\x03%d" % self._number
        self.process.stdin.write("%s\n;\n\\echo %s :ERROR\n" % (sql.rstrip().rstrip(";"), self._mark))
        self.process.stdin.flush()
        return self

    def finish(self, timeout=60):
        deadline = time.monotonic() + timeout
        text = ""
        while True:
            try:
                line = self._lines.get(timeout=max(0.001, deadline - time.monotonic()))
            except queue.Empty:
                raise AssertionError("psql session did not answer within %s s" % timeout) from None
            if line is None:
                raise SqlError(self._take_errors() or "the connection is gone")
            if line.startswith(self._mark):
                if line.split()[1] == "true":
                    raise SqlError(self._take_errors())
                self._take_errors()
                return _rows(text)
            notified = _NOTIFIED.match(line)
            if notified:
                self.notifications.append(notified.groups())
            else:
                text += line

    def wait_notifications(self, count, timeout=10):
        """The channels and payloads that NOTIFY has brought; psql shows them after a statement."""
        wait_until(lambda: self.execute("SELECT 1") and self.notifications, lambda got: len(got) >= count, timeout)
        return self.notifications

    def _take_errors(self):
        with open(self._errors, errors="replace") as file:
            text = file.read()
        self._error_file.seek(0)
        self._error_file.truncate()
        return text

    def execute(self, sql, timeout=60):
        self.start(sql)
        return self.finish(timeout)

    def value(self, sql, timeout=60):
        rows = self.execute(sql, timeout)
        return rows[0][0] if rows else None

    def error(self, sql, timeout=60):
        self.start(sql)
        return self.finish_error(timeout)

    def finish_error(self, timeout=60):
        try:
            rows = self.finish(timeout)
        except SqlError as error:
            return error
        raise AssertionError("expected an error, got %r" % (rows,))

    def close(self):
        if self.process.poll() is None:
            try:
                self.process.stdin.close()
                self.process.wait(timeout=10)
            except (OSError, subprocess.TimeoutExpired):
                self.process.kill()
                self.process.wait()
        self._error_file.close()

    def __enter__(self):
        return self

    def __exit__(self, *_):
        self.close()


def build(top, scratch, flags="", arguments=()):
    """Build a copy of the tree at top, so that nothing is written into it; returns the copy.

    Raises BuildError when it cannot be built.
    """
    source = scratch.path("source")
    shutil.copytree(top, source, symlinks=True, ignore=shutil.ignore_patterns(
        ".git", "*.o", "*.bc", "*.so", "__pycache__", "results", "regression.*"))
    make(source, "-j2", "COPT=" + flags, *arguments)
    return source


def install(source, scratch, command=None):
    """make install of a built tree; returns what to give to Server(stage=...)."""
    arguments = ["install", "PG_CONFIG=" + (command or versions.pg_config_command())]
    if not supports_stage(scratch, command):
        make(source, *arguments)
        return None
    stage = scratch.path("stage")
    make(source, *arguments, "DESTDIR=" + stage)
    return stage


class BuildError(Exception):
    """make failed; the text is its output."""


def make(folder, *arguments):
    environment = {key: value for key, value in os.environ.items() if key not in ("MAKEFLAGS", "MAKELEVEL", "MFLAGS", "DESTDIR")}
    done = subprocess.run(["make", "-s", "-C", folder, "with_llvm=no"] + list(arguments), env=environment, stdin=subprocess.DEVNULL,
                          stdout=subprocess.PIPE, stderr=subprocess.STDOUT, text=True, errors="replace")
    if done.returncode != 0:
        raise BuildError(done.stdout)


def supports_stage(scratch, command=None):
    """Whether the server can load an extension from outside its own folders (before 18 a setting of Debian's builds)."""
    server = Server(scratch, name="probe", preload=False, command=command)
    probe = scratch.run([server.tool("postgres"), "-D", server.data, "-C", versions.stage_setting(command)], unprivileged=True,
                        check=False, cwd="/")
    shutil.rmtree(scratch.path("probe"))
    return probe.returncode == 0
