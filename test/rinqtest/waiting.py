"""Waiting for conditions, always with a deadline and a description of what was awaited."""

import time


class WaitTimeout(AssertionError):
    """A condition did not come true in time."""


def wait_until(fetch, predicate=bool, timeout=10.0, description="a condition", interval=0.01):
    """Call fetch() until predicate(its result) holds and return that result.

    An exception in fetch counts as "not yet", except that the last one is shown when time is up.
    """
    deadline = time.monotonic() + timeout
    pause = interval
    while True:
        error = None
        value = None
        try:
            value = fetch()
            if predicate(value):
                return value
        except WaitTimeout:
            raise
        except Exception as exc:  # the thing looked at may not be there yet
            error = exc
        if time.monotonic() >= deadline:
            seen = "error: %s" % error if error is not None else "last seen: %r" % (value,)
            raise WaitTimeout("waited %.1f s for %s; %s" % (timeout, description, seen))
        time.sleep(pause)
        pause = min(pause * 1.5, 0.1)
