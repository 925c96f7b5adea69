"""The address of the broker and the password for it: in a file of its own, and what happens when one of them is wrong."""

import os
import shutil

from rinqtest import case
from rinqtest.cluster import Database, Server, quote
from rinqtest.waiting import wait_until


class Credentials(case.Case):
    @classmethod
    def setUpClass(cls):
        super().setUpClass()
        cls.scratch = case.scratch()
        cls.folder = cls.scratch.make_folder("credentials", owned=True)
        cls.password = cls.world.broker.password
        broker = cls.world.broker
        cls.without = "amqp://%s@127.0.0.1:%d/" % (broker.user, broker.port)
        cls.bare = Server(cls.scratch, case.STAGE, name="credentials-server", environment=case.SERVER_ENVIRONMENT,
                          settings={"rinq.amqp_dsn": quote(cls.without), "rinq.amqp_connection_timeout": "'5s'"}).start()
        cls.server = cls.bare
        cls.server.psql("CREATE EXTENSION rinq")
        cls.db = Database(cls.server, "postgres")

    @classmethod
    def tearDownClass(cls):
        cls.bare.stop("immediate")

    def file(self, name, content, mode=0o600):
        path = os.path.join(self.folder, name)
        with open(path, "wb") as file:
            file.write(content)
        os.chmod(path, mode)
        self.give(path)
        return path

    def give(self, path):
        if self.scratch.user is not None:
            os.chown(path, self.scratch.user.pw_uid, self.scratch.user.pw_gid)

    def use(self, path):
        self.server.configure(rinq__amqp_dsn=self.without, rinq__amqp_password_file=path)

    def bounce(self):
        """A reload keeps a connection that works; the next one goes by the settings."""
        self.db.sql("SELECT rinq_stop()")
        self.db.sql("SELECT rinq_start()")

    def wait_error(self, pattern, state="disconnected"):
        return self.db.wait_peer(lambda row: row["state"] == state and pattern in (row["last_error"] or ""), description=pattern)

    def test_password_in_a_file(self):
        for name, content in (("plain", "%s"), ("line", "%s\n"), ("dos", "%s\r\n"), ("more", "%s\n# rotated each month\n")):
            with self.subTest(name):
                self.use("")
                self.bounce()
                self.wait_error("ACCESS_REFUSED")
                self.use(self.file(name, (content % self.password).encode()))
                self.db.wait_peer()

    def test_relative_to_the_data_directory(self):
        path = self.file("relative", self.password.encode())
        shutil.copy2(path, os.path.join(self.server.data, "broker_password"))
        self.give(os.path.join(self.server.data, "broker_password"))
        self.use("broker_password")
        self.db.wait_peer()

    def test_files_that_are_refused(self):
        os.mkfifo(os.path.join(self.folder, "pipe"))
        self.give(os.path.join(self.folder, "pipe"))
        for path, reason in ((self.file("group", b"x", 0o640), "group or world access"), (self.file("world", b"x", 0o604), "group or world access"),
                             (self.file("empty", b""), "not a password"), (self.file("nul", b"a\0b"), "not a password"),
                             (self.file("long", b"x" * 8192), "longer than 8191 bytes"), (self.file("unreadable", b"x", 0o000), "could not open"),
                             (os.path.join(self.folder, "absent"), "could not open"), (self.folder, "not a regular file"),
                             (os.path.join(self.folder, "pipe"), "not a regular file")):
            with self.subTest(path):
                self.use(path)
                self.bounce()
                self.assertIn(path, self.wait_error(reason)["last_error"])

    def test_last_error_has_a_time_and_the_next_attempt_is_told(self):
        self.use(os.path.join(self.folder, "absent"))
        self.bounce()
        self.wait_error("could not open")
        wait_until(lambda: self.db.sql("SELECT clock_timestamp() - last_error_at BETWEEN '0' AND '30 s',"
                                       " next_attempt - clock_timestamp() BETWEEN '-1 s' AND '45 s' FROM rinq_peer"),
                   lambda rows: rows == [["t", "t"]], description="the times")
        self.use(self.file("times", self.password.encode()))
        self.db.wait_peer()
        self.assertEqual(self.db.sql("SELECT last_error_at IS NOT NULL, next_attempt IS NULL FROM rinq_peer"), [["t", "t"]])

    def test_drop_extension_warns_of_unsent_messages(self):
        self.server.psql("CREATE DATABASE dropping")
        db = Database(self.server, "dropping")
        db.sql("CREATE EXTENSION rinq")
        db.sql("SELECT rinq_stop()")
        db.sql("SELECT rinq_execute('x', 'x') FROM generate_series(1, 3)")
        for sql, count in (("BEGIN; DROP EXTENSION rinq; ROLLBACK", 3), ("BEGIN; DROP SCHEMA public CASCADE; ROLLBACK", 3),
                           ("DELETE FROM rinq_internal.outbox_0; DROP EXTENSION rinq; CREATE EXTENSION rinq", 0)):
            with self.subTest(sql):
                mark = self.server.log_mark()
                db.sql(sql)
                text = self.server.log_since(mark)
                self.assertEqual("%d durable messages have not been sent, and are dropped with rinq" % count in text, count > 0, text)
        db.drop()

    def test_rotation(self):
        path = self.file("rotated", self.password.encode())
        self.use(path)
        before = self.db.wait_peer()
        self.server.configure(rinq__amqp_password_file=path)  # a reload without a change
        self.file("rotated", b"wrong")
        self.use(path)
        # a wrong one is shown, and the connection kept
        self.assertEqual(self.wait_error("ACCESS_REFUSED", "connected")["peer_id"], before["peer_id"])
        self.bounce()
        self.wait_error("ACCESS_REFUSED")
        # no reload is needed to get out of there
        self.file("rotated", self.password.encode())
        self.db.wait_new_peer(before)

    def test_file_that_is_lost_while_connected(self):
        path = self.file("lost", self.password.encode())
        self.use(path)
        before = self.db.wait_peer()
        mark = self.server.log_mark()
        os.chmod(path, 0o644)
        self.server.configure()
        self.server.wait_log(r"no password from \"rinq.amqp_password_file\"", mark)
        self.assertEqual(self.db.peer()["peer_id"], before["peer_id"])

    def test_who_may_know_where_it_is(self):
        self.server.psql("CREATE ROLE nobody_in_particular LOGIN")
        self.assertSqlState(self.db.error("SHOW rinq.amqp_password_file", role="nobody_in_particular"), "42501")

    def test_invalid_address_at_the_start(self):
        for dsn, reason in (("amqps://u:s3cret@127.0.0.1/?sslmode=disable", "contradict"), ("amqp://u:s3cret@127.0.0.1:99999/", "the port is not"),
                            ("rabbit:5672", "does not begin with")):
            with self.subTest(dsn):
                self.server.configure(reload=False, rinq__amqp_dsn=dsn, rinq__amqp_password_file=None)
                mark = self.server.log_mark()
                self.server.restart()
                row = self.wait_error(reason)
                self.assertIn("rinq.amqp_dsn", row["last_error"])
                self.assertIn(row["broker"], (None, ""))
                self.assertEqual(self.server.psql("SHOW rinq.amqp_dsn"), [["(invalid)"]])
                self.assertNotIn("s3cret", self.server.log_since(mark))
                self.assertNotRegex(self.server.log_since(mark), "localhost:5672")
        self.use(self.file("right", self.password.encode()))
        self.db.wait_peer()
