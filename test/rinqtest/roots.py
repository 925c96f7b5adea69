"""Root folders of Debian releases, made with debootstrap and kept, and programs that are run in them.

All that is started and mounted belongs to namespaces that end with the program.
"""

import fcntl
import os
import re
import shutil
import signal
import subprocess
import sys

# what is tried out before it comes into a release: no release by itself, but packages for this one
EXPERIMENTAL, BASE = "experimental", "sid"
TOP = os.path.dirname(os.path.dirname(os.path.dirname(os.path.abspath(__file__))))
SOURCE = "/usr/src/rinq"
INSIDE = "RINQ_MATRIX_INSIDE"
NAMESPACES = ("--mount", "--pid", "--ipc", "--fork", "--kill-child", "--mount-proc")


def say(text):
    print(text, flush=True)


def cache_folder():
    base = os.environ.get("XDG_CACHE_HOME") or os.path.join(os.path.expanduser("~"), ".cache")
    return os.environ.get("MATRIX_DIR") or os.path.join(base, "rinq", "matrix")


def find_obstacles():
    """What keeps this from running here, each with what to do."""
    found = []
    if os.geteuid() != 0:
        found.append("root is needed, to make root folders and to change into them")
    for program, package in (("debootstrap", "debootstrap"), ("unshare", "util-linux"), ("setpriv", "util-linux"), ("chroot", "coreutils")):
        if shutil.which(program) is None:
            found.append("%s is not installed (Debian: apt-get install %s)" % (program, package))
    if not found and subprocess.run(["unshare", *NAMESPACES, "true"], stdout=subprocess.DEVNULL, stderr=subprocess.DEVNULL).returncode != 0:
        found.append("this machine does not let root mount anything (unshare %s fails), as in a container without privileges" % " ".join(NAMESPACES))
    return found


# in the first process: all that is started, and all that is mounted, belongs to namespaces that end with it


def lock_releases(releases):
    """Keep others from the root folders until this process ends; returns the releases that another run has."""
    os.makedirs(cache_folder(), exist_ok=True)
    taken = []
    for release in releases:
        # it stays open, and belongs to nothing that is started here
        lock = os.open(os.path.join(cache_folder(), release + ".lock"), os.O_CREAT | os.O_RDWR | os.O_CLOEXEC)
        try:
            fcntl.flock(lock, fcntl.LOCK_EX | fcntl.LOCK_NB)
        except BlockingIOError:
            taken.append(release)
    return taken


def run_inside(program, arguments, releases):
    """Run the program again in namespaces of its own.  However it ends, nothing stays mounted and nothing goes on running."""
    inner = subprocess.Popen(["setpriv", "--pdeathsig", "KILL", "unshare", *NAMESPACES, sys.executable, os.path.abspath(program), *arguments],
                             env=dict(os.environ, **{INSIDE: "1"}))
    stopped_by = []

    def leave(number, _frame):
        # the wait below ends by it; a second one, from here, would wait for the first
        stopped_by.append(number)
        inner.kill()
    for number in (signal.SIGTERM, signal.SIGHUP, signal.SIGINT):
        signal.signal(number, leave)
    status = inner.wait()
    for release in releases:
        remove_temporary(os.path.join(cache_folder(), release))
    return 128 + stopped_by[0] if stopped_by else status


def remove_temporary(root):
    """What a run has left in its temporary folder because it was stopped."""
    folder = os.path.join(root, "tmp")
    for name in os.listdir(folder) if os.path.isdir(folder) else ():
        path = os.path.join(folder, name)
        if os.path.isdir(path) and not os.path.islink(path):
            shutil.rmtree(path, ignore_errors=True)
        elif os.path.lexists(path):
            os.unlink(path)


# in the second


class CellError(Exception):
    """A cell cannot be run; the text says why."""


class Root:
    """The root folder of a release, made when it is not there yet."""

    def __init__(self, folder, release, mirror):
        self.release = release
        self.base = BASE if release == EXPERIMENTAL else release
        self.mirror = mirror
        self.folder = os.path.join(folder, release)
        self.log = os.path.join(folder, release + ".debootstrap.log")
        self._mounted = False

    def path(self, inside):
        return os.path.join(self.folder, inside.lstrip("/"))

    def make(self):
        """It takes its name when it is whole, so that one that is there can be used."""
        if os.path.isdir(self.folder):
            return
        say("%s: debootstrap" % self.release)
        unfinished = self.folder + ".new"
        shutil.rmtree(unfinished, ignore_errors=True)
        with open(self.log, "w") as log:
            status = subprocess.run(["debootstrap", "--variant=minbase", "--include=ca-certificates,make", self.base, unfinished]
                                    + ([self.mirror] if self.mirror else []), stdin=subprocess.DEVNULL, stdout=log, stderr=log).returncode
        if status != 0:
            raise CellError("debootstrap failed, see " + self.log)
        if self.release == EXPERIMENTAL:
            add_experimental(unfinished)
        os.rename(unfinished, self.folder)

    def enter(self):
        """Mount what programs expect, hand over how this machine reaches its mirror, and lay the sources there anew."""
        self.make()
        self.copy_network()
        shutil.rmtree(self.path(SOURCE), ignore_errors=True)
        copy_sources(self.path(SOURCE))
        remove_temporary(self.folder)
        if self._mounted:
            return
        for kind in (["-t", "proc", "proc", "/proc"], ["--rbind", "/sys", "/sys"], ["--rbind", "/dev", "/dev"], ["-t", "tmpfs", "tmpfs", "/dev/shm"]):
            os.makedirs(self.path(kind[-1]), exist_ok=True)
            self.mount(*kind)
        self._mounted = True

    def mount(self, *arguments):
        command = ["mount", *arguments[:-1], self.path(arguments[-1])]
        done = subprocess.run(command, stdout=subprocess.PIPE, stderr=subprocess.STDOUT, text=True)
        if done.returncode != 0:
            raise CellError("%s: %s" % (" ".join(command), done.stdout.strip()))

    def copy_network(self):
        for name in ("/etc/resolv.conf", "/etc/hosts"):
            if os.path.exists(name):
                with open(name) as given, open(self.path(name), "w") as copy:
                    copy.write(given.read())
        settings = capture(["apt-config", "dump"])
        with open(self.path("/etc/apt/apt.conf.d/90matrix"), "w") as file:
            # a mirror may be kept as it was on some day; that it is Debian's is checked all the same
            file.write('Acquire::Check-Valid-Until "false";\n')
            file.writelines(line + "\n" for line in settings.splitlines() if re.match(r"Acquire::https?::(\S*::)?Proxy ", line, re.I))

    def command(self, argv, **environment):
        kept = {name: value for name, value in os.environ.items() if name.lower().endswith("_proxy")}
        kept.update({"PATH": "/usr/local/sbin:/usr/local/bin:/usr/sbin:/usr/bin:/sbin:/bin", "HOME": "/root", "LANG": "C.UTF-8"}, **environment)
        return ["chroot", self.folder, "env", "-i", "-C", SOURCE, *("%s=%s" % pair for pair in kept.items()), *argv]

    def version_of(self, package):
        """The upstream part of a package's version, "" when it is not installed."""
        text = capture(self.command(["dpkg-query", "-W", "-f", "${Version}", package]))
        return re.sub(r"^\d+:|-[^-]*$|[+~](dfsg|ds|really|deb).*", "", text)

    def postgresql(self):
        """The version of the PostgreSQL that is installed, "-" when there is none."""
        words = capture(self.command(["pg_config", "--version"])).split()
        return words[1] if len(words) > 1 else "-"

    def newest_postgresql(self):
        """The major version of the newest PostgreSQL that it has a package of."""
        capture(self.command(["apt-get", "-qq", "update"]))
        names = capture(self.command(["apt-cache", "pkgnames", "postgresql-server-dev-"])).split()
        found = [int(name.rpartition("-")[2]) for name in names if name.rpartition("-")[2].isdigit()]
        if not found:
            raise CellError("there is no package of PostgreSQL")
        return max(found)

    def missing_libraries(self, folder, other):
        """What the programs and libraries of a folder need that another root folder has not: name and path."""
        needed = capture(self.command(["sh", "-c", 'find "$0" -type f \\( -name "*.so" -o -path "*/bin/*" \\) -exec ldd {} + 2>/dev/null', folder]))
        there = capture(other.command(["ldconfig", "-p"]))
        return {name: path for name, path in re.findall(r"^\s*(\S+) => (/\S+) ", needed, re.M) if "\t%s " % name not in there}


def add_experimental(folder):
    """Have apt know that suite beside the release, and take PostgreSQL from there, but nothing else."""
    with open(os.path.join(folder, "etc/apt/sources.list"), "r+") as file:
        file.write(re.sub(r"\b%s\b" % BASE, EXPERIMENTAL, file.read()))
    with open(os.path.join(folder, "etc/apt/preferences.d/90matrix"), "w") as file:
        file.write("Package: /^(postgresql|libpq|libecpg|libpgtypes)/\nPin: release a=%s\nPin-Priority: 990\n" % EXPERIMENTAL)


def capture(argv):
    try:
        return subprocess.run(argv, stdin=subprocess.DEVNULL, stdout=subprocess.PIPE, stderr=subprocess.DEVNULL, text=True).stdout.strip()
    except OSError:
        return ""


def copy_sources(target):
    """What git knows or would take; without git, all but what a build makes."""
    listed = subprocess.run(["git", "-c", "safe.directory=*", "-C", TOP, "ls-files", "-z", "--cached", "--others", "--exclude-standard"],
                            stdout=subprocess.PIPE, stderr=subprocess.DEVNULL) if shutil.which("git") else None
    if listed is None or listed.returncode != 0:
        shutil.copytree(TOP, target, symlinks=True, ignore=shutil.ignore_patterns(".git", "*.o", "*.bc", "*.so", "__pycache__", "build"))
        return
    for name in set(os.fsdecode(listed.stdout).split("\0")) - {""}:
        if os.path.lexists(os.path.join(TOP, name)):
            os.makedirs(os.path.dirname(os.path.join(target, name)), exist_ok=True)
            shutil.copy2(os.path.join(TOP, name), os.path.join(target, name), follow_symlinks=False)


def own_mirror():
    """Where this machine's apt has Debian's own packages from; "" leaves the choice to debootstrap."""
    lines = capture(["apt-get", "indextargets", "--format", "$(ORIGIN) $(SUITE) $(REPO_URI)", "Created-By: Packages"]).splitlines()
    fields = [line.split() for line in lines]
    found = [field[2] for field in fields if len(field) == 3 and field[0] == "Debian" and not re.search("security|updates|backports", field[1])]
    return found[0] if found else ""
