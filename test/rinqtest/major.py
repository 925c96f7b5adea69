"""PostgreSQL in several major versions, each with the extension built for it."""

import os

from . import case, versions
from .scratch import Scratch
from .server import build, install

TOP = os.path.dirname(os.path.dirname(os.path.dirname(os.path.abspath(__file__))))


class Installation:
    """One PostgreSQL, given by its pg_config, and where its servers find the extension."""

    def __init__(self, command):
        self.command = command
        self.version = versions.postgresql(command)
        self.scratch = None
        self.stage = case.STAGE
        if command != versions.pg_config_command():
            self._build()

    def _build(self):
        self.scratch = Scratch(prefix="rinq-major-")
        flags = "-Wall -Wextra -Werror -isystem " + versions.pg_config("--includedir-server", self.command)
        source = build(TOP, self.scratch, flags, ["PG_CONFIG=" + self.command])
        self.stage = install(source, self.scratch, self.command)

    def close(self):
        if self.scratch is not None:
            self.scratch.close()


def installations():
    """Of the versions that pg_upgrade is to go through, the oldest first."""
    return [Installation(command) for command in versions.upgrade_path()]
