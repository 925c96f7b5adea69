"""PostgreSQL in several major versions, each with the extension built for it."""

import os
import subprocess

from . import case, versions
from .scratch import Scratch
from .server import build, install

TOP = os.path.dirname(os.path.dirname(os.path.dirname(os.path.abspath(__file__))))


class Installation:
    """One PostgreSQL, given by its pg_config, and where its servers find the extension."""

    def __init__(self, command):
        self.command = command
        self.version = versions.postgresql(command)
        self.scratch = Scratch(prefix="rinq-major-")
        self.stage = case.STAGE
        self.bindir = None
        if command != versions.pg_config_command():
            self._build()
        if self.stage is not None and versions.upgrade_needs_own_folders(command):
            self._copy()

    def _copy(self):
        """A copy of the installation, which finds its folders from where it is, with the extension in them."""
        for what in ("--bindir", "--pkglibdir", "--sharedir"):
            folder = versions.pg_config(what, self.command)
            os.makedirs(self.scratch.path("copy" + folder))
            for source in (folder, self.stage + folder):
                if os.path.isdir(source):
                    # of a program that is a link, the folder would be that of what it leads to
                    subprocess.run(["cp", "-r", "-L" if what == "--bindir" else "-s", source + "/.", self.scratch.path("copy" + folder)], check=True)
        self.bindir = self.scratch.path("copy" + versions.pg_config("--bindir", self.command))
        self.stage = None

    def _build(self):
        flags = "-Wall -Wextra -Werror -isystem " + versions.pg_config("--includedir-server", self.command)
        source = build(TOP, self.scratch, flags, ["PG_CONFIG=" + self.command])
        self.stage = install(source, self.scratch, self.command)

    def close(self):
        self.scratch.close()


def installations():
    """Of the versions that pg_upgrade is to go through, the oldest first."""
    return [Installation(command) for command in versions.upgrade_path()]
