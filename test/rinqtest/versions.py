"""What differs between versions of PostgreSQL and RabbitMQ, as far as the tests have to know: the only place that asks for a version."""

import os
import re
import shutil
import subprocess

# The node's own folders; Debian's wrappers in /usr/sbin insist on the packaged node's account and folders.
_BROKER_FOLDERS = ("/usr/lib/rabbitmq/bin", "/usr/local/lib/rabbitmq/bin", "/opt/rabbitmq/sbin")
# What a broker takes by default before 4.0, where it became 16 MiB.
_MAX_MESSAGE_SIZE = 134217728


def pg_config_command():
    """The pg_config of the PostgreSQL that is tested."""
    return os.environ.get("PG_CONFIG", "pg_config")


def pg_config(what, command=None):
    """What a pg_config says, by default that of the PostgreSQL that is tested."""
    return subprocess.run([command or pg_config_command(), what], check=True, stdout=subprocess.PIPE, text=True).stdout.strip()


def postgresql(command=None):
    """The major version of PostgreSQL."""
    return int(re.search(r"\d+", pg_config("--version", command)).group())


def upgrade_path():
    """The pg_config of each PostgreSQL that pg_upgrade is to go through, the oldest first and the tested one last; see test/matrix.

    Where there is no older one, there are two servers of the same version, which pg_upgrade takes as well.
    """
    older = os.environ.get("RINQ_OLDER_POSTGRESQL", "").split()
    return (older or [pg_config_command()]) + [pg_config_command()]


def upgrade_needs_own_folders(command):
    """Whether pg_upgrade looks for libraries in the server's own folder only, whatever dynamic_library_path says: Debian's older builds have extension_destdir."""
    return postgresql(command) >= 18


def knows_column_marks(command):
    """Whether the programs of a PostgreSQL can read what servers write down of each column since the minor versions of November 2026 (15.20, 17.12)."""
    with open(os.path.join(pg_config("--bindir", command), "pg_dump"), "rb") as file:
        return b"attversion" in file.read()


def forget_column_marks(server, database):
    """As the minor version before leaves them, for a pg_upgrade that is older than the server and would stop at any table; the server is to be stopped then."""
    server.psql("UPDATE pg_attribute SET attoptions = (SELECT array_agg(o) FROM unnest(attoptions) o WHERE o !~ '^pg_attver=')"
                " WHERE attoptions::text ~ 'pg_attver='", database)


def initdb_options(command=None):
    """Options with which the servers of all versions are alike in what pg_upgrade wants to be alike."""
    return ["--no-data-checksums"] if postgresql(command) >= 18 else []


def handlers_need_login():
    """Before 17 there is no session of a role that may not log in, not even one that a server's own process asks for."""
    return postgresql() < 17


def wait_event(name):
    """The extension's waits have names from 17 on; before, all of them are called the same."""
    return ("Extension", name if postgresql() >= 17 else "Extension")


def stage_settings(stage, command=None):
    """Settings with which a server finds an extension that was installed under a folder (DESTDIR)."""
    libdir, sharedir = (os.path.join(stage, pg_config(what, command).lstrip("/")) for what in ("--pkglibdir", "--sharedir"))
    settings = {"dynamic_library_path": "'%s:$libdir'" % libdir}
    if postgresql(command) >= 18:
        settings["extension_control_path"] = "'%s:$system'" % sharedir
    else:
        settings["extension_destdir"] = "'%s'" % stage  # of Debian's builds; without it tests install where the server looks
    return settings


def stage_setting(command=None):
    """The one of these that not every build has."""
    return "extension_control_path" if postgresql(command) >= 18 else "extension_destdir"


def broker_root():
    """The root folder of the broker where it is another than that of the tests; see test/matrix.  Both have the same folder for temporary files."""
    return os.environ.get("RINQ_BROKER_ROOT", "")


def broker_command(argv, folder, identity):
    """A command line that runs a program in the broker's root folder; identity is what subprocess takes to drop root's privileges."""
    return ["chroot", "--userspec=+%d:+%d" % (identity["user"], identity["group"]), "--groups=", broker_root(),
            "sh", "-c", 'cd "$0" && exec "$@"', folder, *argv]


def broker_tool(name):
    """The path of one of RabbitMQ's own programs, as seen in its root folder."""
    for folder in _BROKER_FOLDERS:
        if os.access(os.path.join(broker_root() + folder, name), os.X_OK):
            return os.path.join(folder, name)
    found = None if broker_root() else shutil.which(name)
    if found is None:
        raise RuntimeError("%s is not installed" % name)
    return found


def broker_settings():
    """Keys and Erlang terms with which every version of the broker takes what the tests send."""
    return {"max_message_size": str(_MAX_MESSAGE_SIZE)}


def _broker_version(broker):
    return tuple(map(int, broker.ctl("version").strip().split(".")[:2]))


def broker_takes_quorum_for_classic(broker):
    """Whether a broker can let a quorum queue pass where a classic one is declared."""
    return _broker_version(broker) >= (3, 13)


def broker_nodes(broker):
    """How many nodes a cluster needs so that those that are left can declare something when one is down: from 4.2 on, a majority."""
    return 3 if _broker_version(broker) >= (4, 2) else 2


def cppcheck_suppressions():
    """Kinds of messages of newer versions of cppcheck that say nothing of the sources.

    It takes a function's argument for read when another argument fills it, as in rinq_bytes(text, format(text)); the compiler's own
    warning of what is not initialised does not.
    """
    found = re.search(r"(\d+)\.(\d+)", subprocess.run(["cppcheck", "--version"], stdout=subprocess.PIPE, text=True).stdout)
    if found is None or tuple(map(int, found.groups())) < (2, 11):
        return []
    return ["--suppress=normalCheckLevelMaxBranches", "--suppress=uninitvar"]
