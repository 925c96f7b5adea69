"""A second test/run beside the first: on its own servers, it runs the suites that it is told one by one."""

import json
import subprocess
import sys

MARK = "\x02suite ended "


class Side:
    def __init__(self, argv):
        self._process = subprocess.Popen(argv, stdin=subprocess.PIPE, stdout=subprocess.PIPE, text=True, errors="replace")

    def run(self, name):
        """Run a suite; returns how many tests passed, and the names of those that failed and were skipped."""
        self._process.stdin.write(name + "\n")
        self._process.stdin.flush()
        output = []
        for line in self._process.stdout:
            if line.startswith(MARK):
                print("".join(output), end="", flush=True)
                return json.loads(line[len(MARK):])
            output.append(line)
        print("".join(output), end="", flush=True)
        raise RuntimeError("the process that ran %s beside this one has ended" % name)

    def close(self, at_once=False):
        """Let it remove its servers; at_once in the middle of a suite."""
        if at_once:
            self._process.terminate()
        self._process.stdin.close()
        try:
            self._process.wait(timeout=60)
        except subprocess.TimeoutExpired:
            self._process.kill()
            self._process.wait()


def serve(run_suite):
    """The other end: run_suite(name) returns what Side.run is to return."""
    for line in sys.stdin:
        print(MARK + json.dumps(run_suite(line.strip())), flush=True)
