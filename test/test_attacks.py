"""What hostile peers, brokers and roles tried, and must not get."""

import concurrent.futures
import os
import signal
import threading
import time

from rinqtest import case
from rinqtest.cluster import call_sql
from rinqtest.peer import Failure, Raw, RemoteError
from rinqtest.waiting import wait_until
from rinqtest.wire import Field

MEBIBYTE = 1024 * 1024


class Attack(case.Case):
    def setUp(self):
        super().setUp()
        self.db = self.database()
        self.remote = self.peer()

    def counting(self, namespace, body, db=None):
        """A handler that counts its starts, whatever becomes of its transaction."""
        db = db or self.db
        db.sql("CREATE SEQUENCE starts")
        db.handler(namespace, "PERFORM nextval('starts'); " + body)
        db.listen(namespace, namespace)
        return lambda: int(db.value("SELECT CASE WHEN is_called THEN last_value ELSE 0 END FROM starts"))

    def raw_call(self, namespace, deadline, payload=b"\x01"):
        message = self.remote.next_id()
        future = self.remote._waiting[message] = concurrent.futures.Future()
        self.remote.publish_raw("cmd.bal", namespace, payload, {"n": namespace, "c": "x", "dl": Field("l", deadline)},
                                message_id=message, reply_to="c")
        return future


class Network(Attack):
    def test_queue_that_somebody_has_for_himself(self):
        """A namespace that cannot be consumed disturbs no other one, and is tried again when it can."""
        starts = self.counting("fine", "PERFORM pg_sleep(2.5); RETURN req.payload;")
        self.db.handler("taken", "RETURN '1';")
        self.remote.declare_namespace("taken")
        self.remote._do(lambda: self.remote._connection.channel().basic_consume("cmd.taken", lambda *_: None, exclusive=True))
        mark = self.server.log_mark()
        self.db.listen("taken", "taken")
        self.server.wait_log('cannot listen to namespace "taken"', mark)
        pending = [self.remote.call_async("fine", "x", number, timeout=20) for number in range(2)]
        self.assertEqual([self.remote.response(message, 20).result() for message in pending], [0, 1])
        self.assertEqual(starts(), 2)
        self.assertEqual(self.server.log_since(mark).count("cannot listen"), 1)
        self.remote.close()
        other = self.peer()
        self.assertEqual(other.call("taken", "x", timeout=40), 1)

    def test_deadlines_in_another_age(self):
        starts = self.counting("far", "PERFORM pg_sleep(1.5); RETURN req.payload;")
        self.remote.declare_namespace("far")
        for deadline in (2 ** 63 - 1, 2 ** 62, 2 ** 53):
            before = starts()
            self.assertEqual(self.raw_call("far", deadline).result(20).result(), 1)
            self.assertEqual(starts(), before + 1)
        self.assertEqual(self.db.peer()["reconnects"], 0)

    def test_error_that_cannot_be_sent(self):
        """It is answered all the same, instead of coming again for ever."""
        db = self.database(encoding="EUC_JP")
        starts = self.counting("unsendable", "RAISE EXCEPTION 'bad %', convert_from('\\xa9a1'::bytea, 'EUC_JP');", db)
        with self.assertRaises(RemoteError):
            self.remote.call("unsendable", "x", timeout=20)
        self.assertEqual(starts(), 1)

    def test_failure_that_grows(self):
        """A failure passed on may be larger in our encoding than it came."""
        body = b"\x9a" + (2 * MEBIBYTE).to_bytes(4, "big") + b"\xf9\x2e\x66" * (2 * MEBIBYTE)
        served = []

        def fail(request):
            served.append(request)
            raise Failure("grow", "m", Raw(body))
        self.remote.serve("grower", fail)
        self.db.handler("relay", "RETURN rinq_call('grower', 'x', NULL, '20 s');")
        self.db.listen("relay", "relay")
        with self.assertRaises(RemoteError):
            self.peer().call("relay", "x", timeout=30)
        self.assertEqual(len(served), 1)

    def test_many_large_answers(self):
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

    def test_exchange_deleted(self):
        """The peer makes a new connection, and with it everything that is missing."""
        self.db.handler("exchange", "RETURN '1';")
        self.db.listen("exchange", "exchange")
        self.assertEqual(self.db.call("exchange", "x", timeout=20), 1)
        old = self.db.peer()
        self.remote._do(lambda: self.remote._connection.channel().exchange_delete("cmd.bal"))
        error = self.db.error(call_sql("exchange", "x", timeout=20))
        self.assertSqlState(error, "08006")
        self.db.wait_new_peer(old)
        self.assertEqual(self.db.call("exchange", "x", timeout=20), 1)

    def test_handler_that_always_dies(self):
        """Its request does not come again as fast as it can."""
        starts = self.counting("dies", "PERFORM pg_terminate_backend(pg_backend_pid()); PERFORM pg_sleep(10); RETURN NULL;")
        self.remote.execute("dies", "x")
        wait_until(starts, lambda count: count >= 3, timeout=20, description="the third start")
        begin = time.monotonic()
        before = starts()
        wait_until(starts, lambda count: count >= before + 2, timeout=20, description="two more starts")
        self.assertGreater(time.monotonic() - begin, 0.8)


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


class Roles(Attack):
    def attacker(self):
        role = self.db.role("attacker_" + self.db.name)
        self.addCleanup(self.server.psql, "DROP ROLE " + role)
        self.addCleanup(self.db.sql, "DROP OWNED BY " + role)
        self.db.sql("GRANT EXECUTE ON FUNCTION rinq_listen(text, regprocedure, integer, boolean) TO " + role)
        self.db.sql("CREATE SCHEMA own AUTHORIZATION " + role)
        return role

    def test_type_of_the_same_name(self):
        role = self.attacker()
        self.db.sql("CREATE TYPE own.rinq_request AS (id text, source text, namespace text, command text, payload jsonb,"
                    " trace_id text, deadline text, is_response_required text)", role=role)
        self.db.sql("CREATE FUNCTION own.f(r own.rinq_request) RETURNS jsonb LANGUAGE sql AS 'SELECT NULL::jsonb'", role=role)
        self.assertSqlState(self.db.error("SELECT rinq_listen('crash', 'own.f(own.rinq_request)')", role=role), "42P13")

    def test_type_that_was_changed(self):
        """Nobody but a superuser can, but even then the server lives."""
        self.db.handler("changed", "RETURN '1';")
        self.db.listen("changed", "changed")
        self.assertEqual(self.remote.call("changed", "x", timeout=20), 1)
        self.db.sql("ALTER TYPE rinq_request ALTER ATTRIBUTE deadline TYPE text CASCADE")
        with self.assertRaises(RemoteError):
            self.remote.call("changed", "x", timeout=20)
        self.db.sql("ALTER TYPE rinq_request ALTER ATTRIBUTE deadline TYPE timestamptz CASCADE")
        self.assertEqual(self.remote.call("changed", "x", timeout=20), 1)

    def test_listeners_written_directly(self):
        role = self.attacker()
        self.server.psql("GRANT pg_write_all_data, pg_read_all_data TO " + role)
        self.db.sql("GRANT ALL ON rinq_internal.listener TO " + role)
        for sql in ("INSERT INTO rinq_internal.listener VALUES ('evil', 'own.f(public.rinq_request)', 'postgres', 'postgres')",
                    "DELETE FROM rinq_internal.listener", "UPDATE rinq_internal.listener SET role = 'postgres'", "TRUNCATE rinq_internal.listener"):
            self.assertSqlState(self.db.error(sql, role=role), "42501")

    def test_triggers_on_the_tables(self):
        """Nothing of a role that got privileges on everything runs as the owner of the extension, or at all."""
        role = self.attacker()
        self.db.sql("GRANT USAGE ON SCHEMA rinq_internal TO {0}; GRANT ALL ON ALL TABLES IN SCHEMA public, rinq_internal TO {0};"
                    "GRANT ALL ON ALL SEQUENCES IN SCHEMA public, rinq_internal TO {0}; GRANT ALL ON ALL FUNCTIONS IN SCHEMA public TO {0}".format(role))
        self.db.handler("attacked", "RETURN '1';")
        self.db.sql("CREATE FUNCTION attacked_too(n rinq_notification) RETURNS void LANGUAGE sql AS ''")
        self.db.sql("SELECT rinq_listen('attacked', 'attacked(rinq_request)', deduplicate => true)")
        self.assertEqual(self.remote.call("attacked", "x", timeout=20), 1)
        session = self.db.value("SELECT rinq_session_create()")
        self.db.sql("SELECT rinq_session_listen('%s', 'attacked', NULL, 'attacked')" % session)
        self.db.sql("CREATE FUNCTION own.evil() RETURNS trigger LANGUAGE plpgsql AS $$ BEGIN"
                    " EXECUTE 'ALTER ROLE %s SUPERUSER'; RETURN coalesce(NEW, OLD); END $$" % role, role=role)
        for kind in "rows", "statements":
            self.db.sql("DO $$ DECLARE t regclass; BEGIN FOR t IN SELECT oid FROM pg_class WHERE relnamespace = 'rinq_internal'::regnamespace"
                        " AND relkind = 'r' LOOP EXECUTE format('CREATE TRIGGER %s BEFORE INSERT OR UPDATE OR DELETE ON %%s FOR EACH %s"
                        " EXECUTE FUNCTION own.evil()', t); END LOOP; END $$" % (kind, kind[:-1].upper()), role=role)
        listen = "SELECT rinq_listen('attacked.%s', 'attacked(rinq_request)')"
        for sql in (listen % "x", "SELECT rinq_unlisten('attacked')", "SELECT rinq_subscribe('x', 'x', 'attacked_too(rinq_notification)')",
                    "SELECT rinq_unsubscribe('x')", "SELECT rinq_execute('attacked', 'x')",
                    "SELECT rinq_outbox_dead_letter_retry('1-0001.1@0#1')", "SELECT rinq_outbox_dead_letter_delete('1-0001.1@0#1')",
                    "SELECT rinq_inbox_dead_letter_retry('1-0001.1@0#1')", "SELECT rinq_inbox_dead_letter_delete('1-0001.1@0#1')"):
            self.assertSqlState(self.db.error(sql), "55000", "not as rinq made it")
            self.assertSqlState(self.db.error(sql, role=role), "55000", "not as rinq made it")
        with self.assertRaises(RemoteError):
            self.remote.call("attacked", "x", timeout=20)
        mark = self.server.log_mark()
        self.db.sql("SELECT rinq_notify('attacked', 'x', '%s', to_jsonb(repeat('x', 9000)))" % session)
        self.server.wait_log('table "rinq_internal.stored_notification" is not used', mark)
        self.assertEqual(self.db.value("SELECT rolsuper FROM pg_roles WHERE rolname = '%s'" % role), "f")
        self.assertEqual(int(self.db.value("SELECT count(*) FROM rinq_check() WHERE message ~ 'the trigger'")),
                         int(self.db.value("SELECT count(*) FROM rinq_internal.manifest")))
        self.db.sql("DROP FUNCTION own.evil CASCADE")
        self.assertEqual(self.remote.call("attacked", "x", timeout=20), 1)
        self.db.sql("SELECT rinq_unlisten('attacked'), rinq_session_destroy('%s')" % session)

    def test_name_of_a_dropped_handler(self):
        """Whoever creates a function of that name does not get to run as the role that registered the first."""
        role = self.attacker()
        self.db.sql("GRANT CREATE ON SCHEMA public TO " + role)
        create = "CREATE FUNCTION public.taken_over(req rinq_request) RETURNS jsonb LANGUAGE sql AS 'SELECT to_jsonb(current_user::text)'"
        self.db.sql(create)
        self.db.listen("taken-over", "taken_over")
        self.assertEqual(self.remote.call("taken-over", "x", timeout=20), "postgres")
        self.db.sql("DROP FUNCTION public.taken_over(rinq_request)")
        self.db.sql(create, role=role)
        with self.assertRaises(RemoteError):
            self.remote.call("taken-over", "x", timeout=20)
        # the owner himself may make it anew
        self.db.sql("DROP FUNCTION public.taken_over(rinq_request)", role=role)
        self.db.sql(create)
        self.assertEqual(self.remote.call("taken-over", "x", timeout=20), "postgres")


class DatabaseCommands(Attack):
    def test_command_that_cannot_succeed_disturbs_nobody(self):
        starts = self.counting("kept", "PERFORM pg_sleep(1.5); RETURN '1';")
        other = self.database()
        pending = self.remote.call_async("kept", "x", timeout=20)
        wait_until(starts, lambda count: count == 1, description="the handler to run")
        self.server.start_psql('ALTER DATABASE "%s" RENAME TO "%s"' % (self.db.name, other.name), "postgres").error()
        self.db.error('ALTER DATABASE "%s" RENAME TO renamed' % self.db.name)
        self.assertEqual(self.remote.response(pending, 20).result(), 1)
        self.assertEqual(starts(), 1)
