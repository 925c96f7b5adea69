"""The demonstration that the README tells of, run as a user runs it: each line comes with the outcome that it promises."""

import os
import re
import subprocess
import unittest

from rinqtest import case

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


if __name__ == "__main__":
    unittest.main()
