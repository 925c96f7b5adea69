"""The demonstration that the README tells of, run as a user runs it: each line comes with the outcome that it promises."""

import os
import re
import shlex
import signal
import subprocess
import unittest

from rinqtest import case
from rinqtest.server import pg_config
from rinqtest.waiting import wait_until

DEMO = os.path.join(os.path.dirname(os.path.abspath(__file__)), "demo")
# a piece of what is called, and of what comes back
OUTCOMES = (
    ("rinq_call('greeter', 'greet'", '{"greeting": "Hello, Ada!"}'),
    ("rinq_call('greeter', 'shout'", "failure RQ001: a greeter only greets"),
    ('peer.call("math", "add"', "3"),
    ('peer.call("math", "multiply"', "failure unknown-command: no such command: multiply"),
    ("what has arrived", '[{"order": "commit"}]'),
    ("rinq_call_many('pricing'", "36"),
    ("rinq_freeze('tenant', 'acme')", "@1"),
    ("Python: fetches them", '{"tenant": "acme", "user": "7"}'),
    ("Python sets user = 8", "8"),
    ("SELECT * FROM seen", "[['greeting', '{\"for\": \"acme\"}']]"),
    ("Python: its session gets", 'changed: {"id": 7, "status": "shipped"}'),
    ("WHERE type = 'low'", '{"item": "apple"}'),
)


class Demo(unittest.TestCase):

    def test_what_it_shows(self):
        done = subprocess.run([DEMO, "--stage", case.STAGE], stdout=subprocess.PIPE, stderr=subprocess.STDOUT, text=True, timeout=300,
                              env={key: value for key, value in os.environ.items() if key != "KEEP"})
        self.assertEqual(done.returncode, 0, done.stdout)
        shown = re.findall(r"^  (\S.*)\n    -> (.*)$", done.stdout, re.MULTILINE)
        self.assertEqual(len(shown), len(OUTCOMES), done.stdout)
        for (called, outcome), (call, expected) in zip(shown, OUTCOMES):
            self.assertIn(call, called)
            self.assertTrue(outcome.endswith(expected), "%s -> %s" % (called, outcome))
        self.assertNotIn("WRONG", done.stdout)

    def test_it_stays_until_it_is_killed(self):
        folder = case.scratch().make_folder("kept demo")
        done = subprocess.run([DEMO, "--stage", case.STAGE], stdout=subprocess.PIPE, stderr=subprocess.STDOUT, text=True, timeout=300,
                              env=dict(os.environ, KEEP="1", RINQ_TMPDIR=folder))
        self.assertEqual(done.returncode, 0, done.stdout)
        connect, = re.findall(r"^    (psql .*)$", done.stdout, re.MULTILINE)
        pid, = re.findall(r"^    kill (\d+)$", done.stdout, re.MULTILINE)
        try:
            arguments = [os.path.join(pg_config("--bindir"), "psql"), *shlex.split(connect)[1:], "-XAtc"]
            called = subprocess.run(arguments + ["SELECT rinq_call('greeter', 'greet', '{\"name\": \"you\"}')"], stdout=subprocess.PIPE, text=True, timeout=60)
            self.assertEqual(called.stdout.strip(), '{"greeting": "Hello, you!"}')
        finally:
            os.kill(int(pid), signal.SIGTERM)
        wait_until(lambda: os.listdir(folder), lambda left: left == [], timeout=60, description="nothing to be left of it")


if __name__ == "__main__":
    unittest.main()
