"""Durable messages with attributes: whoever asks about their source is answered, after whatever restarts, in every language."""

from rinqtest import case
from rinqtest.cluster import Database
from rinqtest.peer import Failure
from rinqtest.waiting import wait_until


class DurableSource(case.Case):
    @classmethod
    def make_world(cls):
        world = case.new_world("source")
        cls.addClassCleanup(world.close)
        return world

    def setUp(self):
        super().setUp()
        self.db = self.database()
        self.remote = self.peer()

    def ask(self, source, command="fetch", **body):
        peer, _, session = source.partition("@")[0].partition(".")
        return self.remote.call_unicast(peer, "_sess", command, dict(body, s=int(session)))

    def test_served_to_other_peers(self):
        seen = []
        self.remote.serve("ds-far", lambda request: seen.append(request.source))
        self.db.sql("""SELECT rinq_execute('ds-far', 'x', attributes => '{"auth": {"tenant": "acme", "level": 3}, "other": {"a": null}}')""")
        source = wait_until(lambda: seen, bool, description="the command")[0]
        self.assertTrue(source.endswith("@1"), source)
        expected = {"r": 1, "a": [{"k": "tenant", "v": "acme", "f": True, "cr": 1, "ur": 1}]}
        self.assertEqual(self.ask(source), {"r": 1})
        self.assertEqual(self.ask(source, ns="auth", k=["tenant", "none"]), expected)
        for command, body in (("update", {"r": 1, "ns": "auth", "a": [{"k": "tenant", "v": "evil"}]}), ("clear", {"r": 1, "ns": "auth"}), ("destroy", {"r": 1})):
            with self.assertRaises(Failure) as caught:
                self.ask(source, command, **body)
            self.assertEqual(caught.exception.kind, "frozen")
        with self.assertRaises(Failure) as caught:
            self.ask(source, "clear", r=0, ns="auth")
        self.assertEqual(caught.exception.kind, "stale")
        # after a restart of the server, on another connection, it is the same
        self.server.kill()
        self.server.start()
        self.db.sql("SELECT rinq_wait_ready()")
        wait_until(lambda: self.world.broker.ctl("list_consumers", "queue_name"), lambda s: source.partition(".")[0] + ".req" in s, 30, "the mailbox")
        self.assertEqual(self.ask(source, ns="auth", k=["tenant"]), expected)
        unknown = source.partition(".")[0] + ".4294967295@1"
        with self.assertRaises(Failure) as caught:
            self.ask(unknown)
        self.assertEqual(caught.exception.kind, "not-found")

    def test_from_a_copy(self):
        """A copy of a database that waits to be adopted has no mailbox yet: it gets its own."""
        mailbox = self.db.value("SELECT id FROM rinq_internal.mailbox")
        copy = Database(self.server, self.db.name + "_copy")
        self.server.psql('CREATE DATABASE "%s" TEMPLATE "%s"' % (copy.name, self.db.name))
        self.addCleanup(copy.drop)
        self.remote.serve("ds-copy", lambda request: self.ask(request.source, ns="auth", k=["tenant"])["a"][0]["v"])
        message = copy.value("""SELECT rinq_execute('ds-copy', 'x', attributes => '{"auth": {"tenant": "acme"}}')""")
        self.assertNotEqual(message.partition(".")[0], mailbox)
        copy.wait_peer(lambda row: row["state"] == "suspended")
        copy.sql("SELECT rinq_adopt()")
        self.assertEqual(self.remote.wait_requests(1, timeout=20)[0].source, message.partition("#")[0])
        call = copy.value("""SELECT rinq_call_durable('ds-copy', 'x', attributes => '{"auth": {"tenant": "other"}}')""")
        self.assertEqual(copy.value("SELECT (rinq_wait('%s', '20 s')).payload" % call), '"other"')

    def test_handlers_in_sql(self):
        self.db.sql("CREATE TABLE seen (tenant text, level text, none text);"
                    "CREATE FUNCTION h(req rinq_request) RETURNS jsonb LANGUAGE sql AS $$ INSERT INTO seen VALUES (rinq_source_attribute('auth', 'tenant'),"
                    " rinq_source_attribute('auth', 'level'), rinq_source_attribute('auth', 'none')) RETURNING to_jsonb(tenant) $$;"
                    "SELECT rinq_listen('ds-near', 'h(rinq_request)')")
        self.db.sql("SELECT rinq_wait_ready()")
        call = self.db.value("""SELECT rinq_call_durable('ds-near', 'x', attributes => '{"auth": {"tenant": "acme", "level": 3}}')""")
        self.assertEqual(self.db.value("SELECT (rinq_wait('%s', '20 s')).payload" % call), '"acme"')
        self.assertEqual(self.db.value("SELECT tenant || level || none FROM seen"), "acme3")
        # without attributes, the source of a durable call has none, and is there
        call = self.db.value("SELECT rinq_call_durable('ds-near', 'x')")
        self.assertEqual(self.db.value("SELECT (rinq_wait('%s', '20 s')).payload" % call), '""')

    def test_who_may(self):
        self.db.sql("CREATE ROLE ds_user LOGIN; GRANT EXECUTE ON FUNCTION rinq_execute TO ds_user")
        self.addCleanup(self.db.sql, "DROP OWNED BY ds_user; DROP ROLE ds_user")
        statement = """SET ROLE ds_user; SELECT rinq_execute('ds-may', 'x', attributes => '{"auth": {"tenant": "acme"}}')"""
        self.assertSqlState(self.db.error(statement), "42501")
        self.db.sql("GRANT EXECUTE ON FUNCTION rinq_session_update(text, text, jsonb) TO ds_user")
        self.db.sql(statement)
        for attributes, more in (("[]", ""), ('{"a": 1}', ""), ('{"_sess": {}}', ""), ("{}", ", durable => false"), ("{}", ", session => 'x'")):
            self.assertSqlState(self.db.error("SELECT rinq_execute('ds-may', 'x', attributes => '%s'%s)" % (attributes, more)), "22023")

    def test_kept_for_a_while(self):
        """A session ends when its message is settled, and rinq.source_retention is over: not before, and without a durable call that has the rows looked at."""
        self.remote.serve("ds-old", lambda request: 1)
        self.addCleanup(lambda: (self.db.sql("ALTER SYSTEM RESET rinq.source_retention"), self.db.sql("SELECT pg_reload_conf()")))
        self.db.sql("ALTER SYSTEM SET rinq.source_retention = '1 s'")
        self.db.sql("SELECT pg_reload_conf()")
        wait_until(lambda: self.db.value("SHOW rinq.source_retention"), lambda v: v == "1s", description="the setting")
        attributes = """attributes => '{"auth": {"tenant": "acme"}}'"""
        sessions = lambda: self.db.sql("SELECT id FROM rinq_internal.durable_source")
        for _ in range(2):
            self.db.sql("SELECT rinq_execute('ds-old', 'x', %s)" % attributes)
            wait_until(sessions, lambda rows: rows == [], 20, "no session that has ended")
        call = self.db.value("SELECT rinq_call_durable('ds-nobody', 'x', %s)" % attributes)
        self.db.sql("SELECT rinq_execute('ds-old', 'x', %s)" % attributes)
        self.assertEqual(len(sessions()), 2)
        wait_until(sessions, lambda rows: rows == [[call]], 20, "only the session of the call, which waits")
