"""A copy of a database beside its original waits to be adopted; whatever replaces its original goes on serving."""

import os
import re
import shutil

from rinqtest import case
from rinqtest.cluster import Database
from rinqtest.server import Server, quote
from rinqtest.waiting import wait_until


class CopyCase(case.Case):
    def setUp(self):
        super().setUp()
        self.remote = self.peer()
        self.environment = dict(self.server.base_environment())

    def original(self, db=None):
        """A database that listens to a namespace of its name, subscribes, and says where what it sees is handled."""
        db = db or self.database()
        db.sql("CREATE TABLE heard (type text); CREATE FUNCTION hear(n rinq_notification) RETURNS void LANGUAGE sql AS"
               " $$ INSERT INTO heard VALUES (n.type) $$")
        db.handler("served", "RETURN to_jsonb(current_database()::text);")
        db.listen("served." + db.name, "served")
        db.sql("SELECT rinq_subscribe('s', %s, 'hear(rinq_notification)')" % quote("news." + db.name))
        db.wait_subscription("s")
        self.namespace = "served." + db.name
        return db

    def run_tool(self, tool, *arguments):
        return self.world.scratch.run([self.server.tool(tool), *arguments], env=self.environment, cwd="/")

    def dump(self, db, *options):
        path = self.world.scratch.path("dump-%s" % db.name)
        self.run_tool("pg_dump", *options, "-f", path, db.name)
        return path

    def write(self, text):
        path = self.world.scratch.path("part.sql")
        with open(path, "w") as file:
            file.write(text)
        return path

    def restore(self, path, into=None):
        into = into or self.database(extension=False)
        self.run_tool("psql", "-Xq", "-v", "ON_ERROR_STOP=1", "-d", into.name, "-f", path)
        return into

    def copy(self, original):
        name = original.name + "_copy"
        self.server.psql('CREATE DATABASE "%s" TEMPLATE "%s"' % (name, original.name))
        self.addCleanup(self.server.psql, 'DROP DATABASE IF EXISTS "%s"' % name)
        return Database(self.server, name)

    def suspended(self, db, reason):
        """Its peer says that it has stopped a moment before its process has ended."""
        db.wait_peer(lambda row: row["state"] == "suspended" and reason in row["last_error"] and row["pid"] is None,
                     description="to be suspended: " + reason)

    def served_by(self, *names, remote=None, calls=10):
        """So many calls are answered by these databases, each of which takes part."""
        remote = remote or self.remote
        wait_until(lambda: {remote.call(self.namespace, "x", timeout=20) for _ in range(calls)}, lambda found: found == set(names),
                   description="answers of " + " and ".join(names))


class Copies(CopyCase):
    def test_restored_dump(self):
        """Nothing of it is served, and it says why, until it is adopted."""
        original = self.original()
        restored = self.restore(self.dump(original))
        self.suspended(restored, 'it is a copy of database "%s"' % original.name)
        self.server.wait_log('rinq suspends database "%s": it is a copy of database "%s"' % (restored.name, original.name), self.log_start)
        self.served_by(original.name)
        original.sql("SELECT rinq_notify_many(%s, 'first', '{*}')" % quote("news." + original.name))
        wait_until(lambda: original.sql("SELECT type FROM heard"), lambda rows: rows == [["first"]])
        error = restored.error("SELECT rinq_call(%s, 'x')" % quote(self.namespace))
        self.assertSqlState(error, "55000", "suspended")
        self.assertIn("rinq_adopt", error.text)
        self.assertIn(original.name, error.text)
        restored.sql("SELECT rinq_start()")
        restored.sql("SELECT rinq_execute('of.%s', 'x')" % restored.name)
        self.suspended(restored, original.name)
        self.assertEqual(restored.sql("SELECT type FROM heard"), [])
        # from then on it is a database of its own
        self.assertEqual(restored.value("SELECT rinq_adopt()"), "t")
        restored.wait_peer()
        self.server.wait_log('does not suspend database "%s" any more' % restored.name, self.log_start)
        self.assertEqual(restored.value("SELECT rinq_adopt()"), "f")
        self.served_by(original.name, restored.name)
        self.remote.serve("of." + restored.name, lambda request: None)
        self.remote.wait_requests(1)
        restored.wait_subscription("s")
        again = self.restore(self.dump(restored))
        self.suspended(again, 'it is a copy of database "%s"' % restored.name)
        self.assertEqual(original.value("SELECT rinq_adopt()"), "f")

    def test_adopting_can_be_rolled_back_and_is_not_for_everybody(self):
        original = self.original()
        copy = self.copy(original)
        self.suspended(copy, original.name)
        copy.sql("BEGIN; SELECT rinq_adopt(); ROLLBACK")
        self.suspended(copy, original.name)
        stranger = copy.role("stranger_" + original.name)
        self.assertSqlState(copy.error("SELECT rinq_adopt()", role=stranger), "42501")
        copy.sql("DROP OWNED BY {0}; DROP ROLE {0}".format(stranger))
        self.assertSqlState(copy.error("BEGIN READ ONLY; SELECT rinq_adopt()"), "25006")
        self.served_by(original.name)

    def test_template_copy(self):
        """What its original had not sent is set aside when it is adopted; what it has written itself is sent."""
        original = self.original()
        original.sql("SELECT rinq_stop()")
        brought = original.value("SELECT rinq_execute('sent.%s', 'brought')" % original.name)
        copy = self.copy(original)
        self.suspended(copy, original.name)
        original.sql("SELECT rinq_start()")
        copy.sql("SELECT rinq_execute('sent.%s', 'own')" % original.name)
        self.served_by(original.name)
        self.remote.serve("sent." + original.name, lambda request: None)
        self.remote.wait_requests(1)
        self.suspended(copy, original.name)
        copy.sql("SELECT rinq_adopt()")
        self.assertEqual([request.command for request in self.remote.wait_requests(2)], ["brought", "own"])
        wait_until(lambda: copy.sql("SELECT id FROM rinq_outbox_dead_letter"), lambda rows: rows == [[brought]])
        self.served_by(original.name, copy.name)

    def test_listening_in_a_suspended_copy(self):
        original = self.original()
        copy = self.copy(original)
        self.suspended(copy, original.name)
        copy.handler("more", "RETURN NULL;")
        copy.listen("more", "more")
        self.suspended(copy, original.name)
        copy.sql("SELECT rinq_adopt()")
        copy.wait_peer()
        self.assertEqual(copy.value("SELECT count(DISTINCT identity) FROM rinq_internal.listener"), "1")

    def test_original_dropped_afterwards(self):
        """The copy has replaced it, and goes on by itself; and what is restored from the same dump then is a copy of the copy."""
        original = self.original()
        path = self.dump(original)
        restored = self.restore(path)
        self.suspended(restored, original.name)
        original.drop()
        restored.wait_peer()
        self.served_by(restored.name)
        again = self.restore(path)
        self.suspended(again, 'it is a copy of database "%s"' % restored.name)
        third = self.copy(restored)
        self.suspended(third, restored.name)
        self.served_by(restored.name)

    def test_two_copies_of_a_dropped_original(self):
        """One of them becomes it."""
        original = self.original()
        path = self.dump(original)
        copies = [self.restore(path), self.restore(path)]
        for copy in copies:
            self.suspended(copy, original.name)
        original.drop()
        states = wait_until(lambda: sorted(copy.peer()["state"] for copy in copies), lambda states: states == ["connected", "suspended"])
        self.assertEqual(states, ["connected", "suspended"])
        winner = copies[0] if copies[0].peer()["state"] == "connected" else copies[1]
        loser = copies[1] if winner is copies[0] else copies[0]
        self.suspended(loser, winner.name)
        self.served_by(winner.name)

    def test_renames(self):
        """Neither name makes a difference."""
        original = self.original()
        copy = self.copy(original)
        self.suspended(copy, original.name)
        self.server.psql('ALTER DATABASE "{0}" RENAME TO "{0}_old"; ALTER DATABASE "{1}" RENAME TO "{0}"'.format(original.name, copy.name))
        old = Database(self.server, original.name + "_old")
        self.addCleanup(self.server.psql, 'DROP DATABASE IF EXISTS "%s"' % old.name)
        old.wait_peer()
        self.suspended(original, 'it is a copy of database "%s"' % old.name)
        self.served_by(old.name)
        self.server.psql('DROP DATABASE "%s"' % old.name)
        original.wait_peer()
        self.served_by(original.name)

    def test_restored_into_itself(self):
        """pg_restore --clean, and the extension dropped and created again, replace the original."""
        original = self.original()
        path = self.dump(original, "-Fc")
        for _ in range(2):
            self.run_tool("pg_restore", "--clean", "--if-exists", "-d", original.name, path)
            original.wait_peer()
            self.served_by(original.name)
            original.wait_subscription("s")
        wait_until(lambda: original.value("SELECT count(*) FROM rinq_internal.identity"), lambda count: count == "1")

    def test_restored_in_any_order(self):
        """Listeners that come before the identity they belong to do not serve meanwhile."""
        original = self.original()
        with open(self.dump(original)) as file:
            parts = re.split(r"(COPY rinq_internal\.(\w+) .*?\n\\\.\n)", file.read(), flags=re.S)
        data = dict(zip(parts[2::3], parts[1::3]))
        restored = self.restore(self.write("".join(parts[0::3])))
        restored.wait_peer()
        for table in ("listener", "subscription"):
            self.restore(self.write(data[table]), restored)
            self.suspended(restored, "listeners or subscriptions of another database")
            self.served_by(original.name, calls=4)
        self.restore(self.write(data["identity"]), restored)
        restored.wait_peer(lambda row: "it is a copy of database" in (row["last_error"] or ""))
        self.served_by(original.name, calls=4)
        original.drop()
        restored.wait_peer()
        self.served_by(restored.name)

    def test_made_of_a_template(self):
        """Templates are not served, and each database made of one is one of its own."""
        name = self.original().name
        self.server.psql('ALTER DATABASE "%s" IS_TEMPLATE true' % name)
        self.addCleanup(self.server.psql, 'DROP DATABASE IF EXISTS "%s"' % name)
        self.addCleanup(self.server.psql, 'ALTER DATABASE "%s" IS_TEMPLATE false' % name)
        made = [self.copy(Database(self.server, name))]
        self.server.psql('ALTER DATABASE "{0}_copy" RENAME TO "{0}_first"'.format(name))
        made = [Database(self.server, name + "_first"), self.copy(Database(self.server, name))]
        self.addCleanup(self.server.psql, 'DROP DATABASE IF EXISTS "%s_first"' % name)
        for db in made:
            db.wait_peer()
        self.served_by(*(db.name for db in made))
        self.assertNotEqual(*(db.value("SELECT id FROM rinq_internal.identity") for db in made))

    def test_another_server(self):
        """A dump of another server, and a cluster that was upgraded, are what they were; a copy beside them is one."""
        original = self.original()
        original.sql("UPDATE rinq_internal.identity SET origin = '1/' || (SELECT oid FROM pg_database WHERE datname = current_database())")
        wait_until(lambda: original.value("SELECT origin = rinq_internal.this_database() FROM rinq_internal.identity"), lambda own: own == "t")
        original.wait_peer()
        self.served_by(original.name)
        path = self.dump(original)
        with open(path) as file:
            text = file.read()
        with open(path, "w") as file:
            file.write(text.replace("\t%s\t" % original.value("SELECT rinq_internal.this_database()"), "\t1/1\t"))
        self.suspended(self.restore(path), 'it is a copy of database "%s"' % original.name)
        original.drop()


class Servers(CopyCase):
    """What happens to whole servers."""

    @classmethod
    def make_world(cls):
        return case.new_world("copies")

    @classmethod
    def tearDownClass(cls):
        cls.world.close()

    def clone(self, name, **settings):
        """A server that is started from a base backup of this one."""
        clone = Server(self.world.scratch, self.server.stage, name=name, settings=dict(
            {"rinq.amqp_dsn": self.server.settings["rinq.amqp_dsn"]}, **settings))
        shutil.rmtree(clone.data)
        self.world.scratch.run([self.server.tool("pg_basebackup"), "-D", clone.data, "--no-sync", "-c", "fast"], env=self.environment,
                               unprivileged=True, cwd="/")
        clone._write_settings()
        self.addCleanup(lambda: clone.running and clone.stop("immediate"))
        return clone

    def test_restart_and_crash(self):
        original = self.original()
        restored = self.restore(self.dump(original))
        self.suspended(restored, original.name)
        for mode in ("fast", "immediate"):
            self.server.restart(mode)
            original.wait_peer()
            self.suspended(restored, original.name)
            self.served_by(original.name)
        restored.sql("SELECT rinq_adopt()")
        restored.wait_peer()
        self.server.restart("immediate")
        for db in (original, restored):
            db.wait_peer()
        self.served_by(original.name, restored.name)

    def test_start_suspended(self):
        """A server that runs from a base backup, and is not to serve."""
        original = self.original()
        original.sql("SELECT rinq_stop()")
        original.sql("SELECT rinq_execute('left.%s', 'original')" % original.name)
        clone = self.clone("clone", **{"rinq.start_suspended": "on"}).start()
        original.sql("SELECT rinq_start()")
        copy = Database(clone, original.name)
        self.suspended(copy, '"rinq.start_suspended" is on')
        self.served_by(original.name)
        copy.sql("SELECT rinq_execute('left.%s', 'copy')" % original.name)
        self.remote.serve("left." + original.name, lambda request: None)
        self.remote.wait_requests(1)
        self.assertEqual(copy.value("SELECT rinq_adopt()"), "t")
        copy.wait_peer()
        self.assertEqual([request.command for request in self.remote.wait_requests(2)], ["original", "copy"])
        wait_until(lambda: copy.value("SELECT count(*) FROM rinq_outbox_dead_letter"), lambda count: count == "1")
        clone.restart("immediate")
        self.suspended(copy, '"rinq.start_suspended" is on')

    def test_promotion(self):
        original = self.original()
        standby = self.clone("standby", primary_conninfo="'host=%s port=%d user=postgres'" % (self.server.socket_folder, self.server.port))
        open(os.path.join(standby.data, "standby.signal"), "w").close()
        standby.start()
        self.served_by(original.name)
        self.server.stop("immediate")
        try:
            standby.psql("SELECT pg_promote()")
            copy = Database(standby, original.name)
            copy.wait_peer()
            self.served_by(original.name)
        finally:
            standby.stop("fast")
            self.server.start()
