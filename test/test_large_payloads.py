"""Large payloads, many at a time, and when payload memory is short: all are answered in the end."""

import os
import signal
import threading

from rinqtest import case
from rinqtest.peer import RemoteError
from rinqtest.waiting import wait_until

MEBIBYTE = 1024 * 1024


class Large(case.OwnDatabaseCase):
    """Many at the same time."""

    def test_many_large_responses(self):
        """All are sent, however long it takes; so is an error whose text has no end."""
        self.db.handler("large", "IF req.command = 'error' THEN RAISE EXCEPTION '%', repeat('x', 200000); END IF;"
                        " RETURN to_jsonb(repeat('x', 15 << 20));")
        self.db.listen("large", "large")
        pending = [self.remote.call_async("large", "x", timeout=60) for _ in range(8)]
        for message in pending:
            self.assertEqual(len(self.remote.response(message, 60).result()), 15 * MEBIBYTE)
        with self.assertRaises(RemoteError) as caught:
            self.remote.call("large", "error", timeout=20)
        self.assertLessEqual(len(str(caught.exception)), 66000)

    def test_many_large_calls(self):
        self.remote.serve("sizes", lambda request: len(request.payload))
        pending = [self.db.start("SELECT rinq_call('sizes', 'x', to_jsonb(repeat('x', 15 << 20)), '60 s')") for _ in range(6)]
        self.assertEqual([one.result(90) for one in pending], [[[str(15 * MEBIBYTE)]]] * 6)


class Memory(case.Case):
    """A server with little payload memory, on the shared broker."""

    @classmethod
    def make_world(cls):
        return case.new_world("memory", broker=case.shared_world().broker, settings={"rinq.payload_memory": "32"})

    @classmethod
    def tearDownClass(cls):
        cls.world.close()

    def test_requests_that_found_no_room(self):
        """They are served when there is room again, without anything else happening."""
        db = self.database()
        remote, asker = self.peer(), self.peer()
        db.handler("room", "RETURN to_jsonb(length(req.payload #>> '{}'));")
        db.listen("room", "room")
        big = "x" * (7 * MEBIBYTE)
        stopped = threading.Event()
        remote.serve("big", lambda request: (stopped.wait(60), big)[1])
        sessions = [db.session() for _ in range(4)]
        pids = [int(session.value("SELECT pg_backend_pid()")) for session in sessions]
        for session in sessions:
            session.start("SELECT length(rinq_call('big', 'x', '1', '60 s')::text)")
        wait_until(lambda: db.peer()["calls_sent"], lambda count: count >= 4, timeout=30, description="the calls to be sent")
        for pid in pids:
            os.kill(pid, signal.SIGSTOP)
        stopped.set()
        try:
            wait_until(lambda: db.peer()["responses_received"], lambda count: count >= 3, timeout=30, description="answers to take the memory")
            pending = asker.call_async("room", "x", "y" * (7 * MEBIBYTE), timeout=60)
            wait_until(lambda: db.peer()["requests_received"], lambda count: count >= 1, timeout=30, description="the request to arrive")
        finally:
            for pid in pids:
                os.kill(pid, signal.SIGCONT)
        self.assertEqual(asker.response(pending, 60).result(), 7 * MEBIBYTE)
        self.assertEqual(asker.call("room", "x", "yy", timeout=20), 2)
        for session in sessions:
            session.finish(60)
            session.close()
