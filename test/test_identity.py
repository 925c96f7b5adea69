"""As whom listeners run stays who it was: when roles are renamed, dropped, reassigned and restored, and when functions change hands or names."""

from rinqtest import case
from rinqtest.peer import RemoteError
from rinqtest.server import quote
from rinqtest.waiting import wait_until

GRANTS = ("GRANT EXECUTE ON FUNCTION rinq_listen(text, regprocedure, integer, boolean, interval, boolean, jsonb, text[]), rinq_unlisten(text),"
          " rinq_subscribe(text, text, regprocedure, jsonb, jsonb), rinq_listener_reassign(name, name) TO %s")
WHO = "RETURN to_jsonb(current_user::text);"


class Identity(case.Case):
    def setUp(self):
        super().setUp()
        self.db = self.database()
        self.remote = self.peer()
        self.dropped = []
        self.addCleanup(self.drop_roles)

    def drop_roles(self):
        """After the database is gone, the roles of this test have nothing any more."""
        self.db.drop()
        for role in self.dropped:
            self.server.psql('DROP ROLE IF EXISTS "%s"' % role)

    def role(self, name, options="LOGIN"):
        name = "%s_%s" % (name, self.db.name)
        self.dropped.append(name)
        self.db.role(name, options)
        self.db.sql(GRANTS % name)
        return name

    def serve(self, namespace, role="postgres", owner=None, body=WHO):
        function = namespace.replace(".", "_")
        self.db.handler(function, body, role=owner or role)
        self.db.listen(namespace, function, role=role)

    def call(self, namespace):
        return self.remote.call(namespace, "x", timeout=20)

    def fails(self, namespace, text="handler cannot be"):
        def error():
            try:
                return "answered %r" % (self.call(namespace),)
            except RemoteError as caught:
                return str(caught)
        wait_until(error, lambda found: text in found, description="%s to fail" % namespace)

    def answers(self, namespace, value, remote=None):
        def answer():
            try:
                return (remote or self.remote).call(namespace, "x", timeout=20)
            except RemoteError as caught:
                return str(caught)
        wait_until(answer, lambda found: found == value, description="%s to answer %r" % (namespace, value))

    def problem(self, namespace, db=None):
        return (db or self.db).value("SELECT problem FROM rinq_listeners WHERE namespace = " + quote(namespace))

    def dump(self, *options):
        scratch = self.world.scratch
        path = scratch.path("dump-%s.sql" % self.db.name)
        scratch.run([self.server.tool("pg_dump"), *options, "-f", path, self.db.name], env=self.server.base_environment(), cwd="/")
        return path

    def restore(self, path, strict=True):
        restored = self.database(extension=False)
        self.world.scratch.run([self.server.tool("psql"), "-Xq", "-v", "ON_ERROR_STOP=%d" % strict, "-d", restored.name, "-f", path],
                               env=self.server.base_environment(), cwd="/", check=strict)
        return restored

    # roles

    def test_renamed_role(self):
        """The listener follows it, and does not pass to another role that takes the name; in a dump either."""
        alice = self.role("alice")
        self.serve("renamed", alice)
        self.assertEqual(self.call("renamed"), alice)
        self.server.psql("ALTER ROLE %s RENAME TO %s_too" % (alice, alice))
        self.dropped.append(alice + "_too")
        self.role("alice")
        self.server.psql("SELECT pg_terminate_backend(pid) FROM pg_stat_activity WHERE backend_type = 'rinq executor'")
        self.answers("renamed", alice + "_too")
        self.assertEqual(self.db.value("SELECT role FROM rinq_listeners"), alice + "_too")
        path = self.dump()
        self.db.drop()
        restored = self.restore(path)
        self.assertEqual(restored.sql("SELECT role, owner, problem FROM rinq_listeners"), [[alice + "_too"] * 2 + [None]])
        restored.drop()

    def test_dropped_role(self):
        """PostgreSQL refuses it, as for the owner of anything, until the listener is gone."""
        alice = self.role("alice")
        self.db.handler("theirs", WHO)
        self.db.listen("dropped", "theirs", role=alice)
        self.db.sql("REVOKE ALL ON FUNCTION rinq_listen(text, regprocedure, integer, boolean, interval, boolean, jsonb, text[]), rinq_unlisten(text),"
                    " rinq_subscribe(text, text, regprocedure, jsonb, jsonb), rinq_listener_reassign(name, name) FROM {0};"
                    " REVOKE ALL ON SCHEMA public FROM {0}".format(alice))
        error = self.db.error("DROP ROLE " + alice)
        self.assertSqlState(error, "2BP01", r"has_listeners_or_subscriptions\(\)")
        self.db.sql("SELECT rinq_unlisten('dropped')")
        self.db.sql("DROP ROLE " + alice)

    def test_dropped_role_with_a_subscription(self):
        alice = self.role("alice")
        self.db.sql("CREATE FUNCTION hear(n rinq_notification) RETURNS void LANGUAGE sql AS ''")
        self.db.sql("SELECT rinq_subscribe('s', 'news', 'hear(rinq_notification)')", role=alice)
        self.db.sql("SELECT rinq_subscribe('t', 'news', 'hear(rinq_notification)')", role=alice)
        self.db.sql("SELECT rinq_unsubscribe('s')")
        self.assertIn("has_listeners", self.db.error("DROP ROLE " + alice).text)
        self.db.sql("SELECT rinq_unsubscribe('t')")
        self.assertNotIn("has_listeners", self.db.error("DROP ROLE " + alice).text)

    def test_drop_owned(self):
        """What runs as the role does not run any more, and the role can be dropped."""
        alice, bob = self.role("alice"), self.role("bob")
        for role in (alice, bob):
            self.db.handler("owned_" + role, WHO)
            self.db.listen("owned." + role, "owned_" + role, role=role)
        self.assertEqual(self.call("owned." + alice), alice)
        self.db.sql("DROP OWNED BY " + alice)
        self.fails("owned." + alice)
        self.assertIn("taken away", self.problem("owned." + alice))
        self.assertEqual(self.call("owned." + bob), bob)
        self.db.sql("DROP ROLE " + alice)
        self.serve("another")
        self.fails("owned." + alice)
        self.assertIn("does not exist any more", self.problem("owned." + alice))
        self.assertEqual(self.db.value("SELECT rinq_listener_reassign(NULL, %s)" % quote(bob)), "1")
        self.answers("owned." + alice, bob)

    def test_privilege_taken_away(self):
        """A role that could be dropped is not served for, and the view says so."""
        alice = self.role("alice")
        self.serve("bare", alice)
        self.assertIsNone(self.problem("bare"))
        self.db.sql("REVOKE EXECUTE ON FUNCTION rinq_internal.has_listeners_or_subscriptions() FROM " + alice)
        self.assertIn("taken away", self.problem("bare"))
        self.serve("another")
        self.fails("bare")
        self.db.listen("bare", "bare", role=alice)
        self.answers("bare", alice)

    def test_reassign_owned(self):
        """It changes owners and not as whom anything runs: DROP ROLE stays refused until the listeners are reassigned."""
        alice, bob = self.role("alice"), self.role("bob")
        for number in range(5):
            self.serve("many.%d" % number, alice)
        self.db.sql("CREATE FUNCTION hear(n rinq_notification) RETURNS void LANGUAGE sql AS ''", role=alice)
        self.db.sql("SELECT rinq_subscribe('s', 'news', 'hear(rinq_notification)')", role=alice)
        with self.db.session() as session:
            session.execute("REASSIGN OWNED BY %s TO %s" % (alice, bob))
        self.assertIn("has_listeners", self.db.error("DROP ROLE " + alice).text)
        self.fails("many.1")
        self.assertIn("another owner", self.problem("many.1"))
        self.assertEqual(self.db.value("SELECT rinq_listener_reassign(%s, %s)" % (quote(alice), quote(bob))), "6")
        for number in range(5):
            self.answers("many.%d" % number, bob)
        self.assertEqual(self.db.sql("SELECT role, problem FROM rinq_subscriptions"), [[bob, None]])
        self.db.sql("DROP OWNED BY {0}; DROP ROLE {0}".format(alice))
        self.answers("many.4", bob)

    def test_reassign_to_the_same_role(self):
        """After functions have got another owner, all of them are registered again by one statement."""
        alice, bob = self.role("alice"), self.role("bob")
        for number in range(3):
            self.serve("again.%d" % number, alice, owner=bob)
            self.db.sql("ALTER FUNCTION again_%d(rinq_request) OWNER TO postgres; ALTER FUNCTION again_%d(rinq_request) OWNER TO %s"
                        % (number, number, self.role("carol%d" % number)))
        self.assertEqual(self.db.sql("SELECT problem IS NULL FROM rinq_listeners"), [["f"]] * 3)
        self.assertEqual(self.db.value("SELECT rinq_listener_reassign(current_user, current_user)", role=alice), "3")
        self.assertEqual(self.db.sql("SELECT problem FROM rinq_listeners"), [[None]] * 3)
        self.answers("again.2", alice)

    def test_reassign_takes_the_privileges_of_both(self):
        alice, bob, carol = self.role("alice"), self.role("bob"), self.role("carol")
        self.serve("guarded", alice)
        reassign = "SELECT rinq_listener_reassign(%s, %s)"
        for old, new, role, state in ((alice, bob, bob, "42501"), (alice, bob, alice, "42501"), (alice, carol, bob, "42501"),
                                      (alice, "postgres", alice, "42501"), ("no_role", bob, bob, "42501"), (alice, "no_role", alice, "42704")):
            self.assertSqlState(self.db.error(reassign % (quote(old), quote(new)), role=role), state)
        self.assertSqlState(self.db.error("SELECT rinq_listener_reassign(NULL, %s)" % quote(bob), role=bob), "42501")
        self.assertSqlState(self.db.error("SELECT rinq_listener_reassign(%s, NULL)" % quote(bob)), "22004")
        # a superuser's handler must be a superuser's function
        self.assertSqlState(self.db.error(reassign % (quote(alice), "'postgres'")), "42501", "superuser")
        self.db.sql("REVOKE EXECUTE ON FUNCTION guarded(rinq_request) FROM PUBLIC")
        self.assertSqlState(self.db.error(reassign % (quote(alice), quote(bob))), "42501", "guarded")
        self.db.sql("GRANT %s TO %s" % (alice, bob))
        self.assertEqual(self.db.value(reassign % (quote(alice), quote(bob)), role=bob), "1")
        self.answers("guarded", bob)

    def test_restored_without_the_role(self):
        """It is nobody's: not that of a role with its number, nor of one that gets its name later."""
        alice, bob = self.role("alice"), self.role("bob")
        self.serve("lost", alice, owner="postgres")
        path = self.dump("-x")
        oid = self.db.value("SELECT %s::regrole::oid" % quote(alice))
        with open(path) as file:
            self.assertNotIn("\t%s\t" % oid, file.read())
        self.db.drop()
        self.server.psql("DROP ROLE " + alice)
        restored = self.restore(path)
        restored.wait_peer()
        self.assertIn('"%s" did not exist' % alice, self.problem("lost", restored))
        self.fails("lost")
        self.server.psql("CREATE ROLE %s LOGIN" % alice)
        restored.sql("SELECT rinq_unlisten('nothing')")
        self.fails("lost")
        self.assertEqual(restored.value("SELECT rinq_listener_reassign(%s, %s)" % (quote(alice), quote(bob))), "1")
        self.answers("lost", bob)
        restored.drop()

    def test_role_whose_name_is_a_number(self):
        """A number in a dump is a name."""
        oid = self.db.value("SELECT 'postgres'::regrole::oid")
        self.server.psql('CREATE ROLE "%s" LOGIN' % oid)
        self.dropped.append(oid)
        self.db.handler("number", WHO)
        self.db.sql(GRANTS % '"%s"' % oid)
        self.db.listen("number", "number", role=oid)
        self.assertEqual(self.call("number"), oid)
        path = self.dump()
        self.db.drop()
        restored = self.restore(path)
        self.answers("number", oid)
        restored.drop()

    def test_role_that_vanished(self):
        """Without a row in the catalogue, by whatever means: a visible reason, and nothing that a dump could hand to somebody."""
        alice, bob = self.role("alice"), self.role("bob")
        self.serve("vanished", alice, owner="postgres")
        self.db.sql("DELETE FROM pg_authid WHERE rolname = %s" % quote(alice))
        self.assertIn("does not exist any more", self.problem("vanished"))
        self.fails("vanished")
        path = self.dump("-x", "-t", "rinq_internal.listener", "--extension=rinq")
        with open(path) as file:
            self.assertNotIn(alice, file.read())
        self.assertEqual(self.db.value("SELECT rinq_listener_reassign(NULL, %s)" % quote(bob)), "1")
        self.answers("vanished", bob)
        self.db.sql("DELETE FROM pg_shdepend WHERE refclassid = 'pg_authid'::regclass AND refobjid NOT IN (SELECT oid FROM pg_authid)")

    # superusers

    def test_superuser_does_not_run_what_others_can_replace(self):
        alice = self.role("alice")
        self.db.handler("bait", WHO, role=alice)
        self.db.sql("CREATE FUNCTION bait(n rinq_notification) RETURNS void LANGUAGE sql AS ''", role=alice)
        self.db.sql("CREATE FUNCTION bait(r rinq_response) RETURNS void LANGUAGE sql AS ''", role=alice)
        for sql in ("SELECT rinq_listen('bait', 'bait(rinq_request)')", "SELECT rinq_subscribe('bait', 'news', 'bait(rinq_notification)')",
                    "SELECT rinq_session_listen(rinq_session_create(), 'news', 'bait(rinq_notification)')",
                    "SELECT rinq_session_on_response(rinq_session_create(), 'bait(rinq_response)')"):
            self.assertSqlState(self.db.error(sql), "42501", "superuser")
        self.db.sql("ALTER FUNCTION bait(rinq_request) OWNER TO postgres")
        self.db.listen("bait", "bait")
        self.assertEqual(self.call("bait"), "postgres")

    def test_superuser_and_what_changes_later(self):
        """Each way in which somebody else comes to own the function of a superuser, or the owner to be somebody else."""
        alice, root = self.role("alice"), self.role("root", "LOGIN SUPERUSER")
        for change in ("ALTER FUNCTION {f}(rinq_request) OWNER TO " + alice,
                       "ALTER ROLE {root} NOSUPERUSER",
                       "DROP FUNCTION {f}(rinq_request); SET ROLE " + alice + "; CREATE FUNCTION {f}(req rinq_request) RETURNS jsonb"
                       " LANGUAGE sql AS 'SELECT to_jsonb(current_user::text)'"):
            name = "later%d" % len(change)
            self.db.handler(name, WHO, role=root)
            self.db.listen(name, name)
            self.assertEqual(self.call(name), "postgres")
            self.db.sql(change.format(f=name, root=root))
            self.fails(name, "cannot be used")
            self.assertRegex(self.problem(name), "owner")
            self.db.sql("ALTER ROLE %s SUPERUSER" % root)

    def test_role_that_becomes_a_superuser(self):
        alice, bob = self.role("alice"), self.role("bob")
        self.serve("risen", alice, owner=bob)
        self.assertEqual(self.call("risen"), alice)
        self.db.sql("ALTER ROLE %s SUPERUSER" % alice)
        self.fails("risen", "cannot be used")
        self.assertIn("is a superuser", self.problem("risen"))
        self.db.sql("ALTER ROLE %s NOSUPERUSER" % alice)
        self.answers("risen", alice)

    # renames

    def test_renames_of_handlers(self):
        """Of the function and its schema; and it still can be dropped and created anew."""
        self.db.sql("CREATE SCHEMA app; CREATE SCHEMA other")
        self.serve("renames", body="RETURN '1';")
        self.db.sql("CREATE FUNCTION hear(n rinq_notification) RETURNS void LANGUAGE sql AS ''")
        self.db.sql("SELECT rinq_subscribe('s', 'news', 'hear(rinq_notification)')")
        for change, name in (("ALTER FUNCTION renames(rinq_request) SET SCHEMA app", "app.renames"),
                             ("ALTER FUNCTION app.renames(rinq_request) RENAME TO \"re (n)amed\"", 'app."re (n)amed"'),
                             ("ALTER SCHEMA app RENAME TO \"an.app\"", '"an.app"."re (n)amed"'),
                             ("DO $$BEGIN ALTER ROUTINE \"an.app\".\"re (n)amed\"(rinq_request) SET SCHEMA other; END$$", 'other."re (n)amed"')):
            self.db.sql(change)
            self.answers("renames", 1)
            self.assertEqual(self.db.sql("SELECT handler, problem FROM rinq_listeners"), [[name + "(public.rinq_request)", None]])
        self.db.sql("DROP SCHEMA other CASCADE; CREATE SCHEMA other;"
                    " CREATE FUNCTION other.\"re (n)amed\"(req rinq_request) RETURNS jsonb LANGUAGE sql AS $$ SELECT '2'::jsonb $$")
        self.answers("renames", 2)
        self.assertEqual(self.db.sql("SELECT problem FROM rinq_subscriptions"), [[None]])

    def test_rename_rolled_back(self):
        self.db.sql("CREATE SCHEMA app")
        self.serve("stays", body="RETURN '1';")
        self.db.sql("BEGIN; ALTER FUNCTION stays(rinq_request) RENAME TO gone; ROLLBACK")
        self.assertEqual(self.db.sql("SELECT handler, problem FROM rinq_listeners"), [["public.stays(public.rinq_request)", None]])
        self.assertEqual(self.call("stays"), 1)

    def test_rename_of_the_extensions_schema(self):
        other = self.database(extension=False)
        other.sql("CREATE SCHEMA bus; CREATE EXTENSION rinq SCHEMA bus")
        other.sql("CREATE FUNCTION h(req bus.rinq_request) RETURNS jsonb LANGUAGE sql AS $$ SELECT req.payload $$")
        other.sql("CREATE TABLE heard (type text); CREATE FUNCTION hear(n bus.rinq_notification) RETURNS void LANGUAGE sql AS"
                  " $$ INSERT INTO heard VALUES (n.type) $$")
        other.sql("SELECT bus.rinq_listen('moved', 'h(bus.rinq_request)')")
        other.sql("SELECT bus.rinq_subscribe('s', 'news', 'hear(bus.rinq_notification)')")
        wait_until(lambda: other.value("SELECT state FROM bus.rinq_peer"), lambda state: state == "connected")
        session = other.value("SELECT bus.rinq_session_create()")
        other.sql("SELECT bus.rinq_session_listen(%s, 'talk', 'hear(bus.rinq_notification)')" % quote(session))
        other.sql("ALTER SCHEMA bus RENAME TO \"R q\"")
        other.sql('SELECT "R q".rinq_wait_ready()')
        self.assertEqual(other.value('SELECT count(session) FROM "R q".rinq_subscriptions WHERE problem IS NULL'), "1")
        self.assertEqual(other.json("SELECT \"R q\".rinq_call('moved', 'x', '7', '10 s')"), 7)
        other.sql("SELECT \"R q\".rinq_notify_many('news', 'durable', '{*}'), \"R q\".rinq_notify('talk', 'session', %s)" % quote(session))
        wait_until(lambda: other.sql("SELECT type FROM heard ORDER BY 1"), lambda rows: rows == [["durable"], ["session"]])
        # functions of the extension with names in their bodies
        other.sql("""SELECT "R q".rinq_session_update("R q".rinq_session_create(), 'x', "R q".rinq_set('a', 'b'), "R q".rinq_freeze('c', 'd'));
                     SELECT "R q".rinq_outbox_dead_letter_retry('58AEE146-191C.45@3#1'), "R q".rinq_outbox_dead_letter_delete('58AEE146-191C.45@3#1'),
                            "R q".rinq_inbox_dead_letter_retry('58AEE146-191C.45@3#1'), "R q".rinq_inbox_dead_letter_delete('58AEE146-191C.45@3#1');
                     SELECT * FROM "R q".rinq_outbox, "R q".rinq_outbox_status, "R q".rinq_sessions, "R q".rinq_stored_notifications;
                     SELECT "R q".rinq_execute('nobody', 'x'); SELECT "R q".rinq_unlisten('moved'); SELECT "R q".rinq_listener_reassign('postgres', 'postgres')""")
        self.assertSqlState(other.error('ALTER EXTENSION rinq SET SCHEMA public'), "0A000", "does not support SET SCHEMA")
        self.assertSqlState(other.error("ALTER SCHEMA rinq_internal RENAME TO x"), "0A000", "cannot be renamed")
        path = self.world.scratch.path("dump-moved.sql")
        self.world.scratch.run([self.server.tool("pg_dump"), "-f", path, other.name], env=self.server.base_environment(), cwd="/")
        other.drop()
        restored = self.restore(path)
        wait_until(lambda: restored.value('SELECT session FROM "R q".rinq_subscriptions'), lambda found: found is not None)
