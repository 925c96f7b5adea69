"""Upgrades: of the objects in a database, and of the library before and after them.

The next one is made up: a column, a table, a view and a function more than the present one has.
"""

import os
import re
import shutil
import subprocess
import unittest

from rinqtest import case, objects
from rinqtest.cluster import SqlError, call_sql
from rinqtest.nextversion import NEXT, TOP, NextVersion, present_version, replace, versions
from rinqtest.scratch import Scratch
from rinqtest.waiting import wait_until

PRESENT = present_version()


class UpgradeCase(case.Case):
    """Tests with a server whose library is of the next version."""

    oldest = None

    @classmethod
    def make_world(cls):
        cls.next = NextVersion(cls.oldest)
        cls.addClassCleanup(cls.next.close)
        world = case.new_world("upgrade-" + cls.__name__.lower(), broker=case.shared_world().broker, stage=cls.next.stage, proxied=False)
        cls.addClassCleanup(world.close)
        return world

    def old_database(self, wait=False, version=PRESENT):
        db = self.database(extension=False)
        db.sql("CREATE EXTENSION rinq VERSION '%s'" % version)
        if wait:
            db.wait_peer()
        return db

    def update(self, db):
        db.sql("ALTER EXTENSION rinq UPDATE")
        self.assertEqual(db.value("SELECT extversion FROM pg_extension WHERE extname = 'rinq'"), NEXT)

    def run_tool(self, tool, *arguments):
        self.server.scratch.run([self.server.tool(tool), "-h", self.server.socket_folder, "-p", str(self.server.port), "-U", "postgres", *arguments],
                                cwd="/")


class StillServed(UpgradeCase):
    """The library is new, the objects are old, and it gets along with them."""

    oldest = PRESENT

    def test_upgraded_is_as_fresh(self):
        made = objects.of_extension(self.database(wait=False))
        self.assertGreater(len(made), 500)
        self.assertIn("function public.rinq_made_up()", made)
        for version in versions():
            with self.subTest(version=version):
                old = self.old_database(version=version)
                self.update(old)
                upgraded = objects.of_extension(old)
                self.assertEqual({name: upgraded.get(name) for name in made if upgraded.get(name) != made[name]},
                                 {name: made[name] for name in made if upgraded.get(name) != made[name]})
                self.assertEqual(set(upgraded) - set(made), set())

    def test_differences_are_seen(self):
        """What the comparison is worth: each of these shows, and where it should."""
        db = self.database(wait=False)
        before = objects.of_extension(db)
        for statement, name in (
                ("COMMENT ON FUNCTION rinq_made_up() IS 'else'", "comment on function public.rinq_made_up()"),
                ("COMMENT ON COLUMN rinq_made_up_rows.id IS NULL", "column public.rinq_made_up_rows.id"),
                ("GRANT EXECUTE ON FUNCTION rinq_made_up() TO pg_monitor", "function public.rinq_made_up()"),
                ("GRANT SELECT (id) ON rinq_made_up_rows TO pg_monitor", "column public.rinq_made_up_rows.id"),
                ("ALTER FUNCTION rinq_made_up() COST 7", "function public.rinq_made_up()")):
            db.sql(statement)
            after = objects.of_extension(db)
            self.assertEqual([key for key in after if after[key] != before.get(key)], [name], statement)
            before = after

    def test_used_before_and_after(self):
        db = self.old_database(wait=True)
        db.sql("CREATE TABLE done (x jsonb)")
        db.handler("keep", "INSERT INTO done VALUES (req.payload); RETURN req.payload;")
        db.listen("upgraded", "keep")
        self.assertEqual(db.value(call_sql("upgraded", "x", 1, timeout=20)), "1")
        self.update(db)
        self.assertEqual(db.value(call_sql("upgraded", "x", 2, timeout=20)), "2")
        db.sql("SELECT rinq_execute('upgraded', 'x', '3')")
        wait_until(lambda: db.sql("SELECT x FROM done ORDER BY x"), lambda rows: rows == [["1"], ["2"], ["3"]], 20, "the commands")
        self.assertEqual(db.value("SELECT rinq_made_up()"), "made up")
        self.assertEqual(db.value("SELECT count(*) FROM rinq_check()"), "0")

    def test_what_was_granted_stays(self):
        """An upgrade takes away what default privileges give on its new objects, and nothing else."""
        role = "upgrade_app"
        db = self.old_database()
        db.role(role)
        db.sql("GRANT EXECUTE ON FUNCTION rinq_call TO %s" % role)
        db.sql("GRANT SELECT ON rinq_peer TO %s" % role)
        db.sql("ALTER DEFAULT PRIVILEGES GRANT EXECUTE ON FUNCTIONS TO %s" % role)
        db.sql("ALTER DEFAULT PRIVILEGES GRANT ALL ON TABLES TO %s" % role)
        self.update(db)

        def may(what):
            return db.value("SELECT has_%s" % what.format(role=role))
        self.assertEqual(may("function_privilege('{role}', 'rinq_call(text, text, jsonb, interval, text)', 'EXECUTE')"), "t")
        self.assertEqual(may("table_privilege('{role}', 'rinq_peer', 'SELECT')"), "t")
        self.assertEqual(may("function_privilege('{role}', 'rinq_made_up()', 'EXECUTE')"), "f")
        self.assertEqual(may("table_privilege('{role}', 'rinq_made_up_rows', 'SELECT')"), "f")
        self.assertEqual(may("table_privilege('{role}', 'rinq_internal.made_up', 'INSERT')"), "f")
        db.sql("DROP OWNED BY %s" % role)

    def test_dump_of_the_version_before(self):
        """Its data goes into the tables of the new version."""
        old = self.old_database(wait=True)
        old.handler("answer", "RETURN '42';")
        old.listen("dumped", "answer")
        path = self.server.scratch.path("dump-" + old.name)
        self.run_tool("pg_dump", "-f", path, old.name)
        old.drop()
        new = self.database(extension=False)
        self.run_tool("psql", "-qX", "-v", "ON_ERROR_STOP=1", "-f", path, new.name)
        self.assertEqual(new.value("SELECT extversion FROM pg_extension WHERE extname = 'rinq'"), NEXT)
        self.assertEqual(new.sql("SELECT namespace, made_up FROM rinq_internal.listener"), [["dumped", "7"]])
        new.wait_peer()
        self.assertEqual(new.value(call_sql("dumped", "x", timeout=20)), "42")


class NotServed(UpgradeCase):
    """The library is new, and needs what the old objects have not."""

    oldest = NEXT

    def test_says_what_to_do_and_then_goes_on(self):
        """A package's upgrade comes long before ALTER EXTENSION; what was registered and committed until then stays."""
        db = self.old_database()
        db.handler("answer", "RETURN '42';")
        db.sql("CREATE FUNCTION hear(n rinq_notification) RETURNS void LANGUAGE sql AS ''")
        for statement in ("SELECT rinq_listen('waits', 'answer(rinq_request)')", "SELECT rinq_execute('waits', 'x')",
                          "SELECT rinq_subscribe('s', 'waits', 'hear(rinq_notification)')", "SELECT rinq_unlisten('waits')"):
            error = db.error(statement)
            self.assertSqlState(error, "55000", "version %s" % PRESENT)
            self.assertIn("ALTER EXTENSION rinq UPDATE", error.hint)
        self.server.wait_log("ALTER EXTENSION rinq UPDATE", self.log_start)
        self.update(db)
        db.listen("waits", "answer")
        db.wait_peer()
        self.assertEqual(db.value(call_sql("waits", "x", timeout=20)), "42")

    def test_no_function_crashes(self):
        """Each that can be called without knowing its arguments: a result, or an error."""
        values = {"text": "'x'", "text[]": "'{x}'", "jsonb": "'1'", "jsonb[]": "'{1}'", "bytea": "'\\xf6'", "bytea[]": "'{}'", "boolean": "true",
                  "integer": "1", "bigint": "1", "interval": "'1 s'"}
        for version in versions():
            with self.subTest(version=version):
                self.call_all(self.old_database(version=version), values)

    def call_all(self, db, values):
        functions = db.sql("SELECT p.oid::regprocedure, p.prorettype IN ('trigger'::regtype, 'event_trigger'::regtype)"
                           " FROM pg_proc p JOIN pg_depend d ON d.classid = 'pg_proc'::regclass AND d.objid = p.oid AND d.deptype = 'e'"
                           " JOIN pg_extension e ON e.oid = d.refobjid WHERE e.extname = 'rinq' AND p.prolang = (SELECT oid FROM pg_language WHERE lanname = 'c')")
        self.assertGreater(len(functions), 60)
        called = 0
        for signature, trigger in functions:
            name, _, types = signature.partition("(")
            if trigger == "t" or "internal" in types or name.endswith(("rinq_stop", "_in", "_recv")):
                continue
            # a strict function does not even begin with NULL
            for given in ({}, values):
                arguments = ", ".join("%s::%s" % (given.get(kind, "NULL"), kind) for kind in types[:-1].split(",") if kind)
                try:
                    db.sql("SET statement_timeout = '5s'; SELECT * FROM %s(%s)" % (name, arguments))
                except SqlError as error:
                    self.assertNotIn(error.sqlstate, ("XX000", None), "%s(%s): %s" % (name, arguments, error))
            called += 1
        self.assertGreater(called, 50)


class Frozen(unittest.TestCase):
    """The scripts of a version that was released stay as they are."""

    def setUp(self):
        scratch = Scratch(prefix="rinq-frozen-")
        self.addCleanup(scratch.close)
        self.tree = scratch.make_folder("tree")
        for name in ("sql", "tools"):
            shutil.copytree(os.path.join(TOP, name), os.path.join(self.tree, name))
        shutil.copy(os.path.join(TOP, "rinq.control"), self.tree)
        self.own = [name for name in os.listdir(os.path.join(self.tree, "sql")) if re.search(r"^rinq--.*(?<=--)%s\.sql$" % re.escape(PRESENT), name)][0]
        self.frozen("--freeze")

    def frozen(self, *arguments):
        return subprocess.run([os.path.join(self.tree, "tools", "frozen"), *arguments], stdout=subprocess.PIPE, text=True).stdout

    def write(self, name, text, mode="w"):
        with open(os.path.join(self.tree, "sql", name), mode) as file:
            file.write(text)

    def test_scripts_here(self):
        done = subprocess.run([os.path.join(TOP, "tools", "frozen")], stdout=subprocess.PIPE, text=True)
        self.assertEqual((done.returncode, done.stdout), (0, ""))

    def test_changed(self):
        self.assertEqual(self.frozen(), "")
        self.write(self.own, "-- more\n", "a")
        self.assertRegex(self.frozen(), r"has changed, but version %s is released: .* write the change into sql/rinq--%s--NEXT.sql" % (PRESENT, PRESENT))
        self.assertIn("has changed", self.frozen("--freeze"), "nothing is frozen in the place of another")
        replace(os.path.join(self.tree, "rinq.control"), "^default_version = .*", "default_version = '%s'" % NEXT)
        self.assertRegex(self.frozen(), r"write the change into sql/rinq--%s--%s.sql" % (PRESENT, NEXT))

    def test_removed(self):
        os.unlink(os.path.join(self.tree, "sql", self.own))
        self.assertIn("is missing", self.frozen())

    def test_next_version(self):
        """It has to be reached from each one before, by a script that is frozen in its turn."""
        replace(os.path.join(self.tree, "rinq.control"), "^default_version = .*", "default_version = '%s'" % NEXT)
        self.assertRegex(self.frozen(), r"nothing leads from version %s, .* write sql/rinq--%s--%s.sql" % (PRESENT, PRESENT, NEXT))
        self.write("rinq--%s.sql" % NEXT, "-- all of it anew\n")
        self.assertIn("is of no version to come", self.frozen())
        os.unlink(os.path.join(self.tree, "sql", "rinq--%s.sql" % NEXT))
        script = "rinq--%s--%s.sql" % (PRESENT, NEXT)
        self.write(script, "-- what is new\n")
        self.assertEqual(self.frozen(), "")
        self.write(script, "-- what is new, and more\n")
        self.assertEqual(self.frozen(), "", "it is not released yet")
        self.assertEqual(self.frozen("--freeze"), "frozen: sql/%s\n" % script)
        self.write(script, "-- what is new\n")
        self.assertIn("has changed", self.frozen())


class NewObjectsOldLibrary(case.Case):
    """The server was not restarted after the package's upgrade."""

    @classmethod
    def make_world(cls):
        return case.shared_world()

    def test_names_the_restart(self):
        db = self.database()
        db.sql("UPDATE pg_extension SET extversion = '%s' WHERE extname = 'rinq'" % NEXT)
        db.handler("answer", "RETURN '42';")
        error = db.error("SELECT rinq_listen('newer', 'answer(rinq_request)')")
        self.assertSqlState(error, "55000", "version %s" % NEXT)
        self.assertIn("estart the server", error.hint)


del UpgradeCase
