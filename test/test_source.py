"""Who a request says it is from, when it says that it is from the very peer that serves it."""

from rinqtest import case
from rinqtest.waiting import wait_until


class Source(case.Case):
    @classmethod
    def setUpClass(cls):
        super().setUpClass()
        cls.db = cls.world.database()
        cls.remote = cls.world.peer()
        cls.db.sql("CREATE TABLE sources (source text)")
        cls.db.handler("source", "INSERT INTO sources VALUES (req.source); RETURN 'true';")
        cls.db.listen("source", "source")
        cls.remote.call("source", "warm", timeout=20)

    @classmethod
    def tearDownClass(cls):
        cls.remote.close()
        cls.db.drop()

    def setUp(self):
        super().setUp()
        self.db.sql("TRUNCATE sources")
        self.peer_id = self.db.peer()["peer_id"]
        self.number = 1000

    def send(self, source):
        self.number += 1
        self.remote.publish_raw("cmd.bal", "source", headers={"n": "source", "c": "x"}, message_id="%s#%d" % (source, self.number))

    def served(self):
        return [row[0] for row in self.db.sql("SELECT source FROM sources")]

    def test_session_of_a_connection(self):
        with self.db.session() as session:
            session.execute("SELECT rinq_call('source', 'x')")
            source = self.served()[0]
            self.assertTrue(source.startswith(self.peer_id + ".") and source.endswith("@0"), source)

            # a revision that it has, and one that it has not
            self.db.sql("TRUNCATE sources")
            rejected = self.db.peer()["requests_rejected"]
            self.send(source.replace("@0", "@1"))
            wait_until(lambda: self.db.peer()["requests_rejected"], lambda n: n == rejected + 1, description="the rejection")
            self.send(source)
            wait_until(self.served, lambda rows: rows == [source], description="the request that is possible")

    def test_sessions_that_do_not_exist(self):
        for session in ("4000000000", "0"):
            source = "%s.%s@0" % (self.peer_id, session)
            with self.subTest(source):
                self.db.sql("TRUNCATE sources")
                self.send(source)
                wait_until(self.served, lambda rows: rows == [source], description="the request to be served")
