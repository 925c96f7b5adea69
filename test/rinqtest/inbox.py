"""What tests of the inbox share: a handler that fails as it is told to, and looks at what has become of what it was called for."""

from rinqtest.waiting import wait_until

QUICK = {"attempts": 3, "first_delay": "20 ms", "max_delay": "50 ms", "jitter": 0}
SLOW = {"first_delay": "1 hour", "max_delay": "1 hour"}


def failing_body(effect, name, value):
    """A handler's body, of its argument's variable and its field with a name: it writes down each attempt twice, what is rolled back with it and what is not."""
    return """
  INSERT INTO effects VALUES (%(effect)s);
  PERFORM nextval('attempts');
  CASE %(value)s.%(name)s
    WHEN 'until' THEN
      IF %(value)s.attempt < (%(value)s.payload #>> '{}')::int THEN
        RAISE EXCEPTION 'not before attempt %%', %(value)s.payload USING DETAIL = 'the detail', HINT = 'the hint';
      END IF;
    WHEN 'fail' THEN PERFORM rinq_fail('no-stock', 'sold out');
    WHEN 'late' THEN IF %(value)s.attempt = 1 THEN PERFORM rinq_retry('100 ms', 'too early'); END IF;
    WHEN 'again' THEN PERFORM rinq_retry(reason => 'for ever', after => '0');
    WHEN 'die' THEN PERFORM pg_terminate_backend(pg_backend_pid()); PERFORM pg_sleep(10);
    WHEN 'gate' THEN PERFORM pg_advisory_xact_lock_shared(4711); RAISE EXCEPTION 'after the gate';
    WHEN 'ok' THEN NULL;
  END CASE;""" % {"effect": effect, "name": name, "value": value}


class InboxLooks:
    """For cases whose database has the table and the sequence that such a handler writes to."""

    def attempts(self):
        return int(self.db.value("SELECT CASE WHEN is_called THEN last_value ELSE 0 END FROM attempts"))

    def effects(self):
        return [(row[0], int(row[1])) for row in self.db.sql("SELECT id, attempt FROM effects ORDER BY id, attempt")]

    def row(self, view, id, timeout=15, where="true"):
        return wait_until(lambda: self.db.json("SELECT to_jsonb(d) FROM %s d WHERE id = '%s' AND %s" % (view, id, where)), timeout=timeout,
                          description="a row of " + view)

    def dead(self, id, timeout=15, where="true"):
        return self.row("rinq_inbox_dead_letter", id, timeout, where)

    def waiting(self, id, timeout=15, where="true"):
        return self.row("rinq_inbox_waiting", id, timeout, where)

    def settled(self, timeout=20):
        """Nothing waits."""
        wait_until(lambda: self.db.value("SELECT count(*) FROM rinq_inbox_waiting"), lambda n: n == "0", timeout, "nothing to wait")
