"""Foreign servers that say where the broker of a database is: each database on its own, by whom, and what others cannot do about it."""

import os
import re
import threading

from rinqtest import case
from rinqtest.cluster import Database, quote
from rinqtest.waiting import wait_until

VHOST = "second"


class ServerCase(case.Case):
    """A broker with two virtual hosts, which are as good as two brokers: rinq.amqp_dsn is about the first one."""

    @classmethod
    def setUpClass(cls):
        super().setUpClass()
        broker = cls.world.broker
        if not any(row == [VHOST] for row in broker.table("list_vhosts", "name")):
            broker.ctl("add_vhost", VHOST)
            broker.ctl("set_permissions", "-p", VHOST, broker.user, ".*", ".*", ".*")
        cls.broker = broker
        cls.hosts = "127.0.0.1:%d" % broker.port

    def setUp(self):
        super().setUp()
        self.db = self.database()
        self.first = self.peer()
        self.second = self.peer(vhost=VHOST)

    def create_sql(self, name="bus", vhost=VHOST, owner=None, password=None, options=""):
        sql = "CREATE SERVER %s FOREIGN DATA WRAPPER rinq OPTIONS (hosts %s, vhost %s%s);" % (name, quote(self.hosts), quote(vhost), options)
        if owner is not None:
            sql += "ALTER SERVER %s OWNER TO %s;" % (name, owner)
        return sql + "CREATE USER MAPPING FOR PUBLIC SERVER %s OPTIONS (user %s, password %s)" % (name, quote(self.broker.user),
                                                                                              quote(password or self.broker.password))

    def connected_to(self, vhost, db=None, server="bus"):
        """The row of the peer, once it is there."""
        where = "127.0.0.1:%d/%s" % (self.broker.port, vhost)
        return (db or self.db).wait_peer(lambda row: row["state"] == "connected" and row["broker"] == where and row["server"] == server,
                                         description="to be connected to " + where)

    def connected_by_settings(self, db=None):
        return (db or self.db).wait_peer(lambda row: row["state"] == "connected" and row["server"] is None, description="to be connected by the settings")

    def keeps(self, before, problem):
        """The connection stays, and why there would be no other one is shown."""
        row = self.db.wait_peer(lambda row: problem in (row["last_error"] or ""), description=problem)
        self.assertEqual((row["state"], row["peer_id"], row["broker"]), ("connected", before["peer_id"], before["broker"]))

    def stays(self, before):
        """Nothing has come of what was done: not by the next reading either."""
        if self.db.value("SELECT to_regprocedure('echo(rinq_request)') IS NULL") == "t":
            self.db.handler("echo", "RETURN req.payload;")
        self.db.listen("read.again", "echo")
        self.db.sql("SELECT rinq_wait_ready()")
        row = self.db.peer()
        self.assertEqual((row["state"], row["peer_id"], row["broker"], row["server"]),
                         ("connected", before["peer_id"], before["broker"], before["server"]))

    def lesser(self, name):
        role = "%s_%s" % (name, self.db.name)
        self.db.role(role)
        self.addCleanup(self.server.psql, "DROP ROLE IF EXISTS %s" % role)
        self.addCleanup(self.db.sql, "DROP OWNED BY %s CASCADE" % role)
        return role


class Connections(ServerCase):
    def test_each_database_on_its_own(self):
        """Two databases that serve the same namespace, each where its broker is."""
        other = self.database()
        for db in (self.db, other):
            db.handler("where_am_i", "RETURN to_jsonb(current_database()::text);")
            db.listen("where", "where_am_i")
        self.db.sql(self.create_sql())
        self.connected_to(VHOST)
        self.connected_by_settings(other)
        for db in (self.db, other):
            db.sql("SELECT rinq_wait_ready()")
        self.assertEqual({self.first.call("where", "x") for _ in range(5)}, {other.name})
        self.assertEqual({self.second.call("where", "x") for _ in range(5)}, {self.db.name})
        for peer, name in ((self.first, "first"), (self.second, "second")):
            peer.serve("which", lambda request, name=name: name)
        self.assertEqual(other.call("which", "x"), "first")
        self.assertEqual(self.db.call("which", "x"), "second")
        self.db.sql("SELECT rinq_execute('which', 'durable')")
        self.assertEqual(self.second.wait_requests(1, where=lambda request: request.command == "durable")[0].command, "durable")

    def test_changes_take_effect(self):
        """Made, changed, rolled back and dropped, one by one or all at once."""
        self.db.sql("BEGIN; %s; ROLLBACK" % self.create_sql())
        before = self.connected_by_settings()
        self.stays(before)
        self.db.sql("CREATE SERVER bus FOREIGN DATA WRAPPER rinq OPTIONS (hosts %s, vhost %s)" % (quote(self.hosts), quote(VHOST)))
        self.keeps(before, "there is no user mapping")
        error = self.db.error("SELECT rinq_wait_ready('0.2 s')")
        self.assertSqlState(error, "08001", "a foreign server that can be used .server .bus. cannot be used: there is no user mapping")
        self.db.sql("CREATE USER MAPPING FOR postgres SERVER bus OPTIONS (user %s, password %s)"
                    % (quote(self.broker.user), quote(self.broker.password)))
        self.connected_to(VHOST)
        self.db.sql("ALTER SERVER bus OPTIONS (SET vhost '/')")
        before = self.connected_to("")
        self.db.sql("ALTER SERVER bus OPTIONS (ADD heartbeat '17')")
        before = self.db.wait_new_peer(before)
        # the same as before, and options of a mapping that does not count
        self.db.sql("ALTER SERVER bus OPTIONS (SET heartbeat '17')")
        self.db.sql("CREATE USER MAPPING FOR PUBLIC SERVER bus OPTIONS (user 'x', password 'y')")
        self.stays(before)
        self.db.sql("ALTER SERVER bus RENAME TO road")
        self.assertEqual(self.connected_to("", server="road")["peer_id"], before["peer_id"])
        self.db.sql("DROP SERVER road CASCADE")
        self.connected_by_settings()

    def test_dropped_extension_leaves_in_order(self):
        """The server goes with the extension; the peer ends what is under way, and does not turn to the broker of the settings meanwhile."""
        release = threading.Event()
        self.server.configure(**{"rinq.shutdown_timeout": "60s"})
        self.addCleanup(self.server.configure, **{"rinq.shutdown_timeout": None})
        self.second.serve("slow", lambda request: release.wait(20) and request.payload)
        self.db.handler("handle", "RETURN NULL;")
        self.db.listen("leaving", "handle")
        self.db.sql(self.create_sql())
        row = self.connected_to(VHOST)
        self.db.sql("SELECT rinq_wait_ready()")
        call = self.db.start("SELECT rinq_call('slow', 'x', '9', '20s')")
        self.second.wait_requests(where=lambda request: request.payload == 9)
        mark = self.server.log_mark()
        self.db.sql("DROP EXTENSION rinq CASCADE")
        wait_until(lambda: self.second.queue_consumers("cmd.leaving"), lambda count: count == 0, description="nothing to be served any more")
        release.set()
        self.assertEqual(call.result(), [["9"]])
        self.server.wait_log("rinq peer %s for database .* stopped" % row["peer_id"], mark, 20)
        self.assertNotRegex(self.server.log_since(mark), 'database "%s" (connected to|lost its)' % self.db.name)

    def test_broker_that_is_of_no_use(self):
        """The connection stays, until that of the newest options is there; and so long the database is not ready."""
        self.db.sql(self.create_sql())
        before = self.connected_to(VHOST)
        for sql, problem in (("ALTER SERVER bus OPTIONS (SET hosts '127.0.0.1:1')", "127.0.0.1:1"),
                             ("ALTER SERVER bus OPTIONS (SET hosts %s, SET vhost 'absent')" % quote(self.hosts), "absent"),
                             ("ALTER SERVER bus OPTIONS (SET vhost %s); ALTER USER MAPPING FOR PUBLIC SERVER bus OPTIONS (SET password 'wrong')"
                              % quote(VHOST), "ACCESS_REFUSED")):
            with self.subTest(sql):
                self.db.sql(sql)
                self.keeps(before, problem)
                self.assertSqlState(self.db.error("SELECT rinq_wait_ready('0.2 s')"), "08001", "a connection to the broker that is configured now")
        self.db.sql("ALTER USER MAPPING FOR PUBLIC SERVER bus OPTIONS (SET password %s)" % quote(self.broker.password))
        self.stays(before)

    def test_password_in_a_file(self):
        """A secret that is mounted; the setting's file is not for servers; and a token longer than a name."""
        path = os.path.join(self.world.scratch.make_folder("server-secrets", owned=True), "password")
        with open(path, "w") as file:
            file.write(self.broker.password + "\n")
        os.chmod(path, 0o600)
        if self.world.scratch.user is not None:
            os.chown(path, self.world.scratch.user.pw_uid, self.world.scratch.user.pw_gid)
        for option in ("passfile", "password_file"):
            with self.subTest(option):
                self.db.sql("CREATE SERVER bus FOREIGN DATA WRAPPER rinq OPTIONS (hosts %s, vhost %s, %s %s);"
                            " CREATE USER MAPPING FOR PUBLIC SERVER bus OPTIONS (user %s)"
                            % (quote(self.hosts), quote(VHOST), option, quote(path), quote(self.broker.user)))
                before = self.connected_to(VHOST)
                os.chmod(path, 0o644)
                self.db.sql("ALTER SERVER bus OPTIONS (ADD heartbeat '17')")
                self.keeps(before, "group or world access")
                os.chmod(path, 0o600)
                self.db.sql("DROP SERVER bus CASCADE")
                self.connected_by_settings()

    def test_several_servers(self):
        """None of them, until one is chosen; the connection stays meanwhile."""
        before = self.connected_by_settings()
        self.db.sql("BEGIN; %s; %s; COMMIT" % (self.create_sql("one"), self.create_sql("two", "/")))
        self.keeps(before, 'there are the servers "one", "two"')
        self.db.sql("SELECT rinq_use_server('one')")
        before = self.connected_to(VHOST, server="one")
        self.db.sql("SELECT rinq_use_server('two')")
        before = self.connected_to("", server="two")
        self.db.sql("ALTER SERVER two RENAME TO three")
        self.assertEqual(self.connected_to("", server="three")["peer_id"], before["peer_id"])
        self.db.sql("DROP SERVER three CASCADE")
        self.keeps(before, 'there is no server "three" any more')
        # and there is no other one when it is lost: not that of the settings, either
        mark = self.server.log_mark()
        self.db.sql("SELECT rinq_stop(); SELECT rinq_start()")
        self.db.wait_peer(lambda row: row["state"] == "disconnected" and 'no server "three"' in row["last_error"], description="to have no broker")
        self.server.wait_log('cannot connect to broker', mark)
        error = self.db.error("SELECT rinq_call('x', 'x')")
        self.assertSqlState(error, "08001", "no connection")
        self.db.sql("SELECT rinq_use_server(NULL)")
        self.connected_to(VHOST, server="one")

    def test_owner_who_is_no_superuser_any_more(self):
        """At the next reading; what was chosen is not replaced by the settings."""
        dba = "dba_" + self.db.name
        self.server.psql("CREATE ROLE %s SUPERUSER" % dba)
        self.addCleanup(self.server.psql, "DROP ROLE IF EXISTS %s" % dba)
        self.addCleanup(self.db.sql, "DROP OWNED BY %s CASCADE" % dba)
        self.db.sql(self.create_sql(owner=dba) + "; SELECT rinq_use_server('bus')")
        before = self.connected_to(VHOST)
        self.server.psql("ALTER ROLE %s NOSUPERUSER" % dba)
        # such a one may change the server, which does not count then
        self.db.sql("SET ROLE %s; ALTER SERVER bus OPTIONS (SET hosts 'elsewhere')" % dba)
        self.keeps(before, "neither a superuser nor the owner of the extension")
        self.db.sql("ALTER SERVER bus OPTIONS (SET hosts %s); ALTER SERVER bus OWNER TO postgres" % quote(self.hosts))
        self.stays(before)
        self.db.sql("ALTER SERVER bus OWNER TO %s" % dba)
        self.db.sql("DROP OWNED BY %s CASCADE" % dba)
        self.keeps(before, 'there is no server "bus" any more')


class Intruders(ServerCase):
    def test_what_a_lesser_role_cannot_do(self):
        """Neither redirect the peer, nor have it disconnect, nor read or replace its credentials."""
        role = self.lesser("intruder")
        self.db.sql(self.create_sql())
        before = self.connected_to(VHOST)
        self.server.psql('ALTER DATABASE "%s" OWNER TO %s' % (self.db.name, role))
        self.addCleanup(self.server.psql, 'ALTER DATABASE "%s" OWNER TO postgres' % self.db.name)
        evil = "CREATE SERVER evil FOREIGN DATA WRAPPER rinq OPTIONS (hosts '127.0.0.1:1')"
        refused = (evil, "ALTER SERVER bus OPTIONS (SET hosts '127.0.0.1:1')", "ALTER SERVER bus OWNER TO CURRENT_USER", "DROP SERVER bus CASCADE",
                   "ALTER USER MAPPING FOR PUBLIC SERVER bus OPTIONS (SET user 'x')", "DROP USER MAPPING FOR PUBLIC SERVER bus",
                   "CREATE USER MAPPING FOR postgres SERVER bus OPTIONS (user 'x')", "CREATE USER MAPPING FOR CURRENT_USER SERVER bus",
                   "SELECT rinq_use_server('bus')", "SELECT rinq_use_server(NULL)", "SELECT * FROM rinq_internal.chosen_server",
                   "INSERT INTO rinq_internal.chosen_server VALUES ('evil')", "SELECT * FROM pg_user_mapping", "DROP EXTENSION rinq",
                   "ALTER EXTENSION rinq DROP FOREIGN DATA WRAPPER rinq", "ALTER FOREIGN DATA WRAPPER rinq NO VALIDATOR",
                   "SELECT rinq_call('x', 'x')")
        for sql in refused:
            with self.subTest(sql):
                self.assertSqlState(self.db.error(sql, role=role), "42501")
        # reassigning from, and dropping of, what is not its own
        self.assertSqlState(self.db.error("REASSIGN OWNED BY postgres TO CURRENT_USER", role=role), "42501")
        self.db.sql("DROP OWNED BY CURRENT_USER", role=role)
        self.stays(before)
        # with all that somebody may have granted without thinking of it
        self.db.sql("GRANT ALL ON FOREIGN SERVER bus TO {0}; GRANT ALL ON FOREIGN DATA WRAPPER rinq TO {0}; GRANT ALL ON ALL FUNCTIONS IN SCHEMA public TO {0};"
                    " GRANT ALL ON SCHEMA rinq_internal TO {0}; GRANT ALL ON ALL TABLES IN SCHEMA rinq_internal TO {0}".format(role))
        for sql in (evil, "CREATE USER MAPPING FOR PUBLIC SERVER evil OPTIONS (user 'x', password 'y')",
                    "CREATE USER MAPPING FOR CURRENT_USER SERVER bus OPTIONS (user 'x', password 'y')"):
            self.db.sql(sql, role=role)
        for sql in refused[1:4] + refused[4:7] + refused[8:10] + ("INSERT INTO rinq_internal.chosen_server VALUES ('evil')",
                                                                  "ALTER SERVER evil OWNER TO postgres"):
            with self.subTest("granted: " + sql):
                self.assertSqlState(self.db.error(sql, role=role), "42501")
        self.stays(before)
        self.assertEqual(self.db.sql("SELECT usename FROM pg_user_mappings WHERE srvname = 'bus' AND umoptions IS NOT NULL", role=role), [[role]])
        # a server of its own does not even count beside none
        self.db.sql("DROP SERVER bus CASCADE")
        before = self.connected_by_settings()
        self.db.sql("ALTER SERVER evil OPTIONS (ADD vhost 'x')", role=role)
        self.stays(before)

    def test_who_attaches_a_trigger(self):
        """The privilege on another role's table is none to use the bus by that role's rights."""
        role = self.lesser("attacher")
        self.db.sql(self.create_sql() + "; CREATE TABLE watched (n int); GRANT TRIGGER, INSERT ON watched TO {0};"
                    " GRANT EXECUTE ON FUNCTION rinq_notify_trigger TO {0}".format(role))
        self.connected_to(VHOST)
        attach = "CREATE TRIGGER tell AFTER INSERT ON watched FOR EACH ROW EXECUTE FUNCTION rinq_notify_trigger('news', 'made', '{*}')"
        self.assertSqlState(self.db.error(attach, role=role), "42501", "permission denied for foreign server bus")
        self.db.sql("GRANT USAGE ON FOREIGN SERVER bus TO %s" % role)
        self.db.sql(attach, role=role)
        self.db.sql("REVOKE USAGE ON FOREIGN SERVER bus FROM %s" % role)
        self.db.sql("INSERT INTO watched VALUES (1)", role=role)

    def test_owner_of_the_database(self):
        """A role that may use the bus as the owner of the database may not when it is that of another one."""
        role = self.lesser("dba")
        self.db.sql(self.create_sql() + "; GRANT USAGE ON FOREIGN SERVER bus TO pg_database_owner; GRANT EXECUTE ON FUNCTION rinq_execute TO %s" % role)
        self.connected_to(VHOST)
        self.server.psql('ALTER DATABASE "%s" OWNER TO %s' % (self.db.name, role))
        self.addCleanup(self.server.psql, 'ALTER DATABASE "%s" OWNER TO postgres' % self.db.name)
        with self.db.session(role) as session:
            session.execute("SELECT rinq_execute('news', 'x')")
            self.server.psql('ALTER DATABASE "%s" OWNER TO postgres' % self.db.name)
            self.assertSqlState(session.error("SELECT rinq_execute('news', 'x')"), "42501", "permission denied for foreign server bus")

    def test_who_sees_the_password(self):
        """The mapped user with USAGE, the owner for PUBLIC, superusers, and who may read all data; as PostgreSQL has it."""
        seen = "SELECT count(*) FROM pg_user_mappings WHERE umoptions::text ~ 'password'"
        self.db.sql(self.create_sql())
        row = self.connected_to(VHOST)
        self.assertNotIn(self.broker.password, str(row))
        monitor = self.lesser("monitor")
        reader = self.lesser("reader")
        self.server.psql("GRANT pg_monitor TO %s; GRANT pg_read_all_data TO %s" % (monitor, reader))
        self.db.sql("GRANT ALL ON FOREIGN SERVER bus TO %s" % monitor)
        self.assertEqual(self.db.value(seen), "1")
        self.assertEqual(self.db.value(seen, role=monitor), "0")
        self.assertEqual(self.db.value(seen, role=reader), "0")
        self.assertEqual(self.db.value("SELECT count(*) FROM pg_user_mapping WHERE umoptions::text ~ 'password'", role=reader), "1")
        everything = self.db.sql("SELECT to_jsonb(p)::text FROM rinq_peer p UNION ALL SELECT to_jsonb(c)::text FROM rinq_check() c"
                                 " UNION ALL SELECT to_jsonb(s)::text FROM pg_shmem_allocations s UNION ALL SELECT to_jsonb(a)::text FROM pg_stat_activity a"
                                 " WHERE backend_type ~ 'rinq'")
        self.assertNoSecret(str(everything), self.broker.password)

    def test_whose_handlers_run(self):
        """USAGE decides who serves, too; at once, and again when it is granted again."""
        role = self.lesser("server")
        self.db.sql(self.create_sql() + "; GRANT USAGE ON FOREIGN SERVER bus TO {0}; GRANT EXECUTE ON FUNCTION rinq_listen TO {0}".format(role))
        self.connected_to(VHOST)
        self.db.handler("serve", "RETURN to_jsonb(current_user::text);", role=role)
        self.db.listen("serving", "serve", role=role)
        self.db.sql("SELECT rinq_wait_ready()")
        self.assertEqual(self.second.call("serving", "x"), role)
        self.db.sql("REVOKE USAGE ON FOREIGN SERVER bus FROM %s" % role)
        self.assertIn("may not use server", self.db.value("SELECT problem FROM rinq_listeners"))
        self.db.sql("SELECT rinq_wait_ready()")
        with self.assertRaisesRegex(Exception, "the handler cannot be run"):
            self.second.call("serving", "x")
        self.db.sql("GRANT USAGE ON FOREIGN SERVER bus TO %s" % role)
        self.db.sql("SELECT rinq_wait_ready()")
        self.assertEqual(self.second.call("serving", "x"), role)
        # a membership is noticed when a request comes
        self.server.psql("CREATE ROLE team_{0}; GRANT team_{0} TO {1}".format(self.db.name, role))
        self.addCleanup(self.server.psql, "DROP ROLE team_%s" % self.db.name)
        self.addCleanup(self.db.sql, "DROP OWNED BY team_%s" % self.db.name)
        self.db.sql("GRANT USAGE ON FOREIGN SERVER bus TO team_{0}; REVOKE USAGE ON FOREIGN SERVER bus FROM {1}".format(self.db.name, role))
        self.assertEqual(self.second.call("serving", "x"), role)
        self.server.psql("REVOKE team_{0} FROM {1}".format(self.db.name, role))
        with self.assertRaisesRegex(Exception, "handler cannot be used"):
            self.second.call("serving", "x")

    def test_server_that_is_replaced(self):
        """Who may use both the old server and the new one is never refused while one takes the place of the other."""
        role = self.lesser("user")
        swap = "BEGIN; DROP SERVER IF EXISTS bus CASCADE; %s; GRANT USAGE ON FOREIGN SERVER bus TO %s; COMMIT;" % (self.create_sql(), role)
        self.db.sql(swap + "GRANT EXECUTE ON FUNCTION rinq_execute TO %s" % role)
        with self.db.session() as swapping, self.db.session(role) as using:
            swapping.execute("SET client_min_messages = error")
            for _ in range(20):
                swapping.start(swap * 10)
                using.execute("BEGIN; SELECT rinq_execute('news', 'x'); ROLLBACK;" * 100)
                swapping.finish()
        self.connected_to(VHOST)

    def test_whose_notifications_are_forwarded(self):
        """USAGE decides who hears by LISTEN, too, also in a session that was made before."""
        role = self.lesser("hearer")
        self.db.sql(self.create_sql() + "; GRANT USAGE ON FOREIGN SERVER bus TO {0}; GRANT EXECUTE ON FUNCTION rinq_session_create,"
                    " rinq_session_listen TO {0}".format(role))
        self.connected_to(VHOST)
        session = self.db.value("SELECT rinq_session_create()", role=role)
        self.db.sql("SELECT rinq_session_listen('%s', 'news', channel => 'news')" % session, role=role)
        notify = "SELECT rinq_notify('news', '%%s', '%s')" % session
        with self.db.session(role) as listener:
            listener.execute("LISTEN news")
            self.db.sql(notify % "first")
            self.assertIn('"first"', listener.wait_notifications(1)[0][1])
            self.db.sql("REVOKE USAGE ON FOREIGN SERVER bus FROM %s" % role)
            self.db.sql(notify % "refused")
            self.db.wait_peer(lambda row: row["notifications_failed"] == 1, description="to refuse to forward")
            self.db.sql("GRANT USAGE ON FOREIGN SERVER bus TO %s" % role)
            self.db.sql(notify % "last")
            self.assertIn('"last"', listener.wait_notifications(2)[1][1])


class Copies(ServerCase):
    def run_tool(self, tool, *arguments, role="postgres"):
        return self.world.scratch.run([self.server.tool(tool), *arguments], env=dict(self.server.base_environment(), PGUSER=role), cwd="/")

    def restore(self, path, name, *options, role="postgres"):
        return self.run_tool("psql", "-Xq", "-v", "ON_ERROR_STOP=1", *options, "-d", name, "-f", path, role=role)

    def test_dump_and_restore(self):
        """Server, mapping and choice come along; the copy uses them when it is adopted, and makes no connection before."""
        self.db.sql("BEGIN; %s; %s; SELECT rinq_use_server('bus'); COMMIT" % (self.create_sql(), self.create_sql("other", "/")))
        self.connected_to(VHOST)
        path = self.world.scratch.path("server-dump")
        self.run_tool("pg_dump", "-f", path, self.db.name)
        with open(path) as file:
            text = file.read()
        self.assertIn("CREATE SERVER bus FOREIGN DATA WRAPPER rinq", text)
        self.assertIn(self.broker.password, text)
        self.assertNotIn("CREATE FOREIGN DATA WRAPPER", text)
        restored = self.database(extension=False)
        self.restore(path, restored.name)
        restored.wait_peer(lambda row: row["state"] == "suspended" and row["pid"] is None, description="to be suspended")
        self.assertEqual(restored.sql("SELECT * FROM rinq_internal.chosen_server"), [["bus"]])
        restored.sql("SELECT rinq_adopt()")
        self.connected_to(VHOST, restored)

    def test_dump_by_a_lesser_role(self):
        """It has no password, and a lesser role cannot restore servers either."""
        self.db.sql(self.create_sql())
        self.connected_to(VHOST)
        role = self.lesser("dumper")
        self.db.sql("GRANT USAGE ON SCHEMA rinq_internal TO {0}; GRANT SELECT ON ALL TABLES IN SCHEMA rinq_internal TO {0};"
                    " GRANT USAGE ON FOREIGN SERVER bus TO {0}".format(role))
        path = self.world.scratch.path("lesser-dump")
        self.run_tool("pg_dump", "-f", path, self.db.name, role=role)
        with open(path) as file:
            text = file.read()
        self.assertIn("CREATE USER MAPPING FOR public SERVER bus", text)
        self.assertNoSecret(text, self.broker.password)
        target = self.database()
        before = self.connected_by_settings(target)
        self.server.psql('ALTER DATABASE "%s" OWNER TO %s' % (target.name, role))
        self.addCleanup(self.server.psql, 'ALTER DATABASE "%s" OWNER TO postgres' % target.name)
        target.sql("GRANT ALL ON SCHEMA public TO %s" % role)
        mapping = re.search(r"CREATE SERVER .*?;", text, re.S).group()
        self.assertSqlState(target.error(mapping, role=role), "42501")
        self.assertSqlState(target.error("COPY rinq_internal.chosen_server FROM PROGRAM 'echo bus'", role=role), "42501")
        self.assertEqual(target.peer()["peer_id"], before["peer_id"])

    def test_template_copy(self):
        """Everything comes along, and nothing is connected until it is adopted."""
        self.db.sql(self.create_sql())
        self.connected_to(VHOST)
        name = self.db.name + "_copy"
        self.server.psql('CREATE DATABASE "%s" TEMPLATE "%s"' % (name, self.db.name))
        self.addCleanup(self.server.psql, 'DROP DATABASE IF EXISTS "%s"' % name)
        copy = Database(self.server, name)
        copy.wait_peer(lambda row: row["state"] == "suspended", description="to be suspended")
        copy.sql("SELECT rinq_adopt()")
        self.connected_to(VHOST, copy)
