"""The applications that a broker is started with: it loads the code of all that it finds, which is most of the work of a start, although it uses few."""

import glob
import os
import re

_FOLDERS = "/usr/lib/rabbitmq/lib/rabbitmq_server-*/plugins"
_NEEDED = ("rabbit", "rabbitmq_prelaunch")


def _applications(folder):
    """Their names, with the folder of each and the names of those that it needs."""
    found = {}
    for path in glob.glob(os.path.join(folder, "*", "ebin", "*.app")):
        with open(path, errors="replace") as file:
            needs = re.search(r"\{\s*applications\s*,\s*\[(.*?)\]", file.read(), re.S)
        name = os.path.basename(path)[:-len(".app")]
        found[name] = (os.path.basename(os.path.dirname(os.path.dirname(path))), re.findall(r"\w+", needs.group(1)) if needs else [])
    return found


def _closure(applications, names):
    closure = set()
    left = list(names)
    while left:
        name = left.pop()
        if name in applications and name not in closure:
            closure.add(name)
            left += applications[name][1]
    return closure


def link_plugins(folder, root, wanted):
    """Fill a folder with links to what a broker with some plugins needs of all that is installed under a root; False when that is not where it is expected."""
    installed = glob.glob(root + _FOLDERS)
    if len(installed) != 1:
        return False
    applications = _applications(installed[0])
    if not all(name in applications for name in (*_NEEDED, *wanted)):
        return False
    for name in _closure(applications, (*_NEEDED, *wanted)):
        target = os.path.join(installed[0][len(root):], applications[name][0])
        os.symlink(target, os.path.join(folder, applications[name][0]))
    return True
