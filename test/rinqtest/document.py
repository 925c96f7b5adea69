"""The documents' blocks of code, to be run as they stand there: what is run cannot go stale."""

import os
import re
import shlex
import subprocess
import sys
import threading

from .waiting import wait_until

TOP = os.path.dirname(os.path.dirname(os.path.dirname(os.path.abspath(__file__))))
EXAMPLES = os.path.join(TOP, "examples")

# a program says when it begins to wait for what others send
_PREAMBLE = """
import pika.adapters.blocking_connection as _blocking
_consume = _blocking.BlockingChannel.start_consuming
def _start(self):
    print("READY", flush=True)
    _consume(self)
_blocking.BlockingChannel.start_consuming = _start
URL = %r
"""


def read(name):
    with open(os.path.join(TOP, name)) as file:
        return file.read()


def blocks(name, title):
    """The fenced blocks below a heading, as (language, text) in their order."""
    text = re.search(r"^##+ %s\n(.*?)(?=^## |\Z)" % re.escape(title), read(name), re.M | re.S)
    if text is None:
        raise AssertionError("%s has no heading %r" % (name, title))
    return re.findall(r"^```(\w+)\n(.*?)^```$", text.group(1), re.M | re.S)


def all_blocks(name):
    """The fenced blocks of a whole document."""
    return re.findall(r"^```(\w+)\n(.*?)^```$", read(name), re.M | re.S)


_STATEMENT = re.compile(r"(SELECT|INSERT|UPDATE|DELETE|CREATE|ALTER|DROP|GRANT|REVOKE|REASSIGN|LISTEN|SET|BEGIN|WITH|DO)\b|--")
_SHELL = re.compile(r"(pg_\w+|createdb|psql) ")


def statements(name):
    """The blocks of SQL of a document, fenced or indented, as (number of the first line, text); lines for the shell are left out."""
    found, block, fence, blank = [], None, None, True
    for number, line in enumerate(read(name).splitlines() + [""], 1):
        if line.startswith("```"):
            fence = None if fence is not None else line[3:]
            block = (number + 1, [], fence) if fence == "sql" else None
            found += [block] if block is not None else []
        elif fence is not None or line.startswith("    ") and block is not None:
            if block is not None:
                block[1].append(line if fence is not None else line[4:])
        elif line.startswith("    ") and blank:
            block = (number, [line[4:]], None)
            found.append(block)
        elif line:
            block = None
        blank = not line
    return [(number, "\n".join(line for line in lines if not _SHELL.match(line))) for number, lines, kind in found if kind == "sql" or _STATEMENT.match(lines[0])]


def only(name, title, language):
    return [text for kind, text in blocks(name, title) if kind == language]


def commands(text, program):
    """The arguments of each command in a block of shell."""
    lines = [shlex.split(line) for line in text.replace("\\\n", " ").splitlines() if line]
    if any(line[0] != program for line in lines):
        raise AssertionError("expected commands of %s alone: %s" % (program, text))
    return [line[1:] for line in lines]


def tidy(text):
    """What is shown, without blanks at the ends and empty lines."""
    return [line.rstrip() for line in text.splitlines() if line.strip()]


def run_sql(database, text, role="postgres", host=None, port=None):
    """Run statements one by one, as psql does with a file; what it has printed, as people see it, and its notices."""
    server = database.server
    where = ["-h", host, "-p", str(port)] if host else []
    done = subprocess.run([server.tool("psql"), "-Xq", "-P", "footer=off", "-P", "pager=off", "-v", "ON_ERROR_STOP=1", "-U", role, "-d", database.name] + where,
                          input=text, capture_output=True, text=True, timeout=60, cwd="/", env=server.base_environment())
    if done.returncode != 0:
        raise AssertionError("%s\nfails in:\n%s" % (done.stderr, text))
    return done.stdout, done.stderr


def run_session(database, texts):
    """Run blocks of statements in one connection, errors included; what each of them has shown."""
    server = database.server
    marked = "".join("\\echo @@%d\n\\warn @@%d\n%s\n" % (number, number, text) for number, text in enumerate(texts))
    done = subprocess.run([server.tool("psql"), "-Xq", "-P", "footer=off", "-P", "pager=off", "-U", "postgres", "-d", database.name],
                          input=marked, capture_output=True, text=True, timeout=60, cwd="/", env=server.base_environment())
    parts = [dict(re.findall(r"^@@(\d+)\n(.*?)(?=^@@|\Z)", stream, re.M | re.S)) for stream in (done.stdout, done.stderr)]
    return [tidy(parts[0][str(number)] + parts[1][str(number)]) for number in range(len(texts))]


class Program:
    """A program in Python, from a document or the examples, that is running."""

    def __init__(self, arguments):
        self.lines = []
        self.errors = []
        self.process = subprocess.Popen([sys.executable, "-u"] + arguments, stdout=subprocess.PIPE, stderr=subprocess.PIPE, text=True,
                                        env=dict(os.environ, PYTHONPATH=EXAMPLES, PYTHONDONTWRITEBYTECODE="1"))
        for pipe, into in ((self.process.stdout, self.lines), (self.process.stderr, self.errors)):
            threading.Thread(target=self._read, args=(pipe, into), daemon=True).start()

    @classmethod
    def of_text(cls, scratch, text, url):
        path = scratch.path("program-%d.py" % id(text))
        with open(path, "w") as file:
            file.write(_PREAMBLE % url + text)
        return cls([path])

    @staticmethod
    def _read(pipe, into):
        for line in pipe:
            into.append(line.rstrip("\n"))

    def shown(self):
        return [line for line in self.lines if line != "READY"]

    def wait(self, condition, description, timeout=20):
        def check():
            if condition(self.lines):
                return True
            if self.process.poll() not in (None, 0):
                raise AssertionError("the program ended:\n%s" % "\n".join(self.errors))
            return False
        wait_until(check, timeout=timeout, description="%s; it has printed %r" % (description, self.lines))

    def wait_ready(self):
        self.wait(lambda lines: "READY" in lines, "the program to be ready")
        return self

    def wait_shown(self, expected):
        self.wait(lambda lines: len(self.shown()) >= len(expected), "the program to print %r" % expected)
        return self.shown()

    def close(self):
        self.process.kill()
        self.process.wait()
        self.process.stdout.close()
        self.process.stderr.close()
