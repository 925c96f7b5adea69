"""What was promised and what arrived, by kind of message; the two must agree in the end."""

import collections
import threading


class Account:
    """Messages of one kind: what was committed, by key, and how often each key arrived."""

    def __init__(self, name, at_least_once=True, at_most_once=False):
        self.name = name
        self.at_least_once = at_least_once
        self.at_most_once = at_most_once
        self.arrived = collections.Counter()
        self.wrong = []
        self.committed = set()
        self.set_aside = set()
        self._lock = threading.Lock()

    def arrive(self, key, right=True):
        with self._lock:
            self.arrived[key] += 1
            if not right:
                self.wrong.append(key)

    def missing(self):
        with self._lock:
            return self.committed - set(self.arrived) - self.set_aside

    def problems(self):
        with self._lock:
            arrived = set(self.arrived)
            repeated = [key for key, count in self.arrived.items() if count > 1]
        found = [("never committed", arrived - self.committed), ("with another content", self.wrong)]
        if self.at_least_once:
            found.append(("lost", self.committed - arrived - self.set_aside))
        if self.at_most_once:
            found.append(("more than once", repeated))
        return ["%s: %d %s, such as %s" % (self.name, len(keys), what, sorted(keys, key=str)[:3]) for what, keys in found if keys]

    def line(self):
        with self._lock:
            total = sum(self.arrived.values())
            return "%-24s committed %8d   arrived %8d   repeated %6d   set aside %4d   missing %4d" % (
                self.name, len(self.committed), len(self.arrived), total - len(self.arrived), len(self.set_aside),
                len(self.committed - set(self.arrived) - self.set_aside))


class Answers:
    """Calls: right answers, errors by what they say, and wrong answers, of which there must be none."""

    def __init__(self, name, tolerated):
        self.name = name
        self._tolerated = tolerated
        self.right = 0
        self.errors = collections.Counter()
        self.intolerable = []
        self.wrong = []
        self._lock = threading.Lock()

    def answer(self, got, expected):
        with self._lock:
            if got == expected:
                self.right += 1
            else:
                self.wrong.append((got, expected))

    def error(self, kind, text=""):
        with self._lock:
            self.errors[kind] += 1
            if kind not in self._tolerated:
                self.intolerable.append("%s %s" % (kind, text[:300]))

    def problems(self):
        found = []
        if self.wrong:
            found.append("%s: %d wrong answers, such as %r" % (self.name, len(self.wrong), self.wrong[0]))
        if self.intolerable:
            found.append("%s: %d errors that no fault explains, such as: %s" % (self.name, len(self.intolerable), self.intolerable[0]))
        if not self.right:
            found.append("%s: not one right answer" % self.name)
        return found

    def line(self):
        with self._lock:
            errors = ", ".join("%s %d" % pair for pair in self.errors.most_common(8))
            return "%-24s right %8d   wrong %4d   errors %6d   %s" % (self.name, self.right, len(self.wrong), sum(self.errors.values()), errors)
