"""Handlers in trouble: what the executor does when one cannot finish."""

from rinqtest import case
from rinqtest.peer import RemoteError

# a sequence counts the tries, since rolling back leaves it alone
BODY = """CASE req.command
    WHEN 'until' THEN
      INSERT INTO effects VALUES (1);
      IF nextval('tries') < (req.payload #>> '{}')::int THEN
        RAISE EXCEPTION 'try again' USING ERRCODE = '40001';
      END IF;
      RETURN req.payload;
    WHEN 'deadlock' THEN
      IF nextval('tries') < 3 THEN RAISE EXCEPTION 'try again' USING ERRCODE = '40P01'; END IF;
      RETURN req.payload;
    WHEN 'other' THEN PERFORM nextval('tries'); RAISE EXCEPTION 'not again' USING ERRCODE = '22012';
    WHEN 'at-commit' THEN INSERT INTO late VALUES (1); RETURN req.payload;
  END CASE;"""


class Handlers(case.Case):
    @classmethod
    def setUpClass(cls):
        super().setUpClass()
        cls.db = cls.world.database()
        cls.db.sql("CREATE TABLE effects (x int)")
        cls.db.sql("CREATE TABLE late (x int)")
        cls.db.sql("CREATE SEQUENCE tries")
        cls.db.sql("""CREATE FUNCTION fail_late() RETURNS trigger LANGUAGE plpgsql AS $$
            BEGIN
              IF nextval('tries') < 3 THEN RAISE EXCEPTION 'try again' USING ERRCODE = '40001'; END IF;
              RETURN NULL;
            END $$""")
        cls.db.sql("""CREATE CONSTRAINT TRIGGER t AFTER INSERT ON late DEFERRABLE INITIALLY DEFERRED
            FOR EACH ROW EXECUTE FUNCTION fail_late()""")
        cls.db.handler("trouble", BODY, "")
        cls.db.listen("trouble", "trouble")
        cls.remote = cls.world.peer(prefetch=100)
        cls.remote.call("trouble", "until", 0, timeout=20)

    @classmethod
    def tearDownClass(cls):
        cls.remote.close()
        cls.db.drop()

    def setUp(self):
        super().setUp()
        self.db.sql("ALTER SEQUENCE tries RESTART")
        self.db.sql("TRUNCATE effects, late")

    def tries(self):
        return int(self.db.value("SELECT last_value FROM tries"))

    def test_serialization_failure_is_retried(self):
        self.assertEqual(self.remote.call("trouble", "until", 4, timeout=20), 4)
        self.assertEqual(self.tries(), 4)
        self.assertEqual(int(self.db.value("SELECT count(*) FROM effects")), 1)

    def test_deadlock_is_retried(self):
        self.assertEqual(self.remote.call("trouble", "deadlock", "x", timeout=20), "x")
        self.assertEqual(self.tries(), 3)

    def test_failure_at_commit_is_retried(self):
        self.assertEqual(self.remote.call("trouble", "at-commit", "x", timeout=20), "x")
        self.assertEqual(self.tries(), 3)
        self.assertEqual(int(self.db.value("SELECT count(*) FROM late")), 1)

    def test_other_errors_are_not(self):
        with self.assertRaisesRegex(RemoteError, "not again"):
            self.remote.call("trouble", "other", timeout=20)
        self.assertEqual(self.tries(), 1)

    def test_without_deadline_tries_are_counted(self):
        message = self.remote.call_async("trouble", "until", 1000)
        with self.assertRaisesRegex(RemoteError, "try again"):
            self.remote.response(message, timeout=30).result()
        self.assertEqual(self.tries(), 10)
