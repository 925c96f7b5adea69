"""A version that comes after the present one, made up so that an upgrade can be tried before there is any."""

import os
import re
import shutil

from .scratch import Scratch
from .server import build, install, make

NEXT = "9.9.0"
TOP = os.path.dirname(os.path.dirname(os.path.dirname(os.path.abspath(__file__))))
DATA = os.path.join(TOP, "test", "data", "upgrade")
VERSION = "src/version.h"
FLAGS = "-O1"


def replace(path, pattern, text):
    with open(path) as file:
        before = file.read()
    after, count = re.subn(pattern, text, before, count=1, flags=re.M)
    if count != 1:
        raise AssertionError("%s has nothing like %s" % (path, pattern))
    with open(path, "w") as file:
        file.write(after)


def present_version():
    with open(os.path.join(TOP, "rinq.control")) as file:
        return re.search(r"^default_version = '([^']+)'", file.read(), re.M).group(1)


def versions():
    """All versions up to the present one that an extension can be created with: each is made by an install script, or leads on from one."""
    names = [re.match(r"rinq--(?:[^-]+--)?([^-]+)\.sql$", name) for name in os.listdir(os.path.join(TOP, "sql"))]
    return sorted({name.group(1) for name in names if name}, key=lambda version: [int(part) for part in version.split(".")])


def make_tree(tree):
    """The sources of the next version, whose library works with the objects of every version before it."""
    shutil.copytree(TOP, tree, symlinks=True, ignore=shutil.ignore_patterns(".git", "build", "*.o", "*.bc", "*.so", "__pycache__", "results"))
    shutil.copy(os.path.join(DATA, "next.sql"), os.path.join(tree, "sql", "rinq--%s--%s.sql" % (present_version(), NEXT)))
    replace(os.path.join(tree, "rinq.control"), r"^default_version = .*", "default_version = '%s'" % NEXT)
    replace(os.path.join(tree, VERSION), r"^#define RINQ_VERSION .*", '#define RINQ_VERSION "%s"' % NEXT)
    with open(os.path.join(DATA, "made_up.c")) as more, open(os.path.join(tree, "src", "sql", "status.c"), "a") as file:
        file.write(more.read())


class NextVersion:
    """The next version, built and installed. oldest: the first version whose objects in a database its library works with."""

    _built = None

    def __init__(self, oldest):
        self.scratch = Scratch(prefix="rinq-next-")
        source = self.scratch.path("source")
        shutil.copytree(self.first_build(), source, symlinks=True)
        replace(os.path.join(source, VERSION), r"^#define RINQ_OLDEST_OBJECTS .*", '#define RINQ_OLDEST_OBJECTS "%s"' % oldest)
        os.unlink(os.path.join(source, "src", "backend", "own_version.o"))
        os.unlink(os.path.join(source, "rinq.so"))
        # nothing else has to be compiled again because of that
        make(source, "-o", VERSION, "COPT=" + FLAGS)
        self.stage = install(source, self.scratch)

    @classmethod
    def first_build(cls):
        """Once, for all that differ in little."""
        if cls._built is None:
            scratch = Scratch(prefix="rinq-next-")
            make_tree(scratch.path("tree"))
            cls._built = build(scratch.path("tree"), scratch, FLAGS)
        return cls._built

    def close(self):
        self.scratch.close()
