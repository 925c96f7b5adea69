"""The part of the benchmark that is about notifications: sending at commit, triggers, and finding those they are for."""

import statistics
import time

from rinqtest.waiting import wait_until

NOTIFY = "SELECT rinq_notify_many('bench-notify', 'x', '{none=this}'::rinq_constraint, '{\"id\": 12345}'::jsonb);\n"
EMPTY = "SELECT pg_backend_pid();\n"
ROWS = 100000
SESSIONS = (100, 1000, 10000, 100000)
GROUP = 10						# sessions that match
MULTICASTS = 3000


def transactions(database, pgbench, tps, seconds):
    """Transactions per second with 8 clients: empty ones, and such that send one notification each."""
    results = {"empty": tps(pgbench(EMPTY, 8, "-T", seconds)[0]), "notify": tps(pgbench(NOTIFY, 8, "-T", seconds)[0])}
    database.value("SELECT rinq_notify_many('bench-notify', 'last', '{*}')")
    wait_until(lambda: database.value("SELECT in_flight FROM rinq_outbox_peer_status()"), lambda n: n == "0", 120)
    return results


def triggers(database):
    """Microseconds per row of an INSERT of many rows, with each kind of trigger."""
    database.sql("DROP TABLE IF EXISTS rows; CREATE TABLE rows (id int, name text, amount numeric);"
                 " CREATE OR REPLACE FUNCTION nothing() RETURNS trigger LANGUAGE plpgsql AS 'BEGIN RETURN NULL; END'")
    results = {}
    for name, trigger in (("empty", "FOR EACH ROW EXECUTE FUNCTION nothing()"),
                          ("row", "FOR EACH ROW EXECUTE FUNCTION rinq_notify_trigger('bench-notify', 'x', '{none=this}')"),
                          ("statement", "REFERENCING NEW TABLE AS n FOR EACH STATEMENT EXECUTE FUNCTION rinq_notify_trigger('bench-notify', 'x', '{none=this}')")):
        database.sql("CREATE TRIGGER t AFTER INSERT ON rows " + trigger)
        start = time.monotonic()
        database.sql("INSERT INTO rows SELECT i, 'name ' || i, i FROM generate_series(1, %d) i" % ROWS, timeout=120)
        results[name] = (time.monotonic() - start) * 1e6 / ROWS
        database.sql("DROP TRIGGER t ON rows; TRUNCATE rows")
        wait_until(lambda: database.value("SELECT in_flight FROM rinq_outbox_peer_status()"), lambda n: n == "0", 120)
    return results


def matching(sender, receiver):
    """Notifications delivered per second to 10 sessions, among ever more that listen."""
    results = {}
    made = 0
    received = lambda: int(receiver.value("SELECT notifications_received FROM rinq_peer"))
    for count in SESSIONS:
        receiver.sql("SELECT count(s) FROM (SELECT rinq_session_listen(s.id, 'bench-match'), rinq_session_update(s.id, 'bench-match',"
                     " rinq_set('group', (i / %d)::text)) AS s FROM (SELECT i, rinq_session_create()::text AS id FROM generate_series(%d, %d) i OFFSET 0) s) x"
                     % (GROUP, made, count - 1), timeout=300)
        made = count
        for number in range(2):				# the first one makes the index
            before = received()
            multicasts = MULTICASTS if number else 1
            start = time.monotonic()
            sender.sql("SELECT count(rinq_notify_many('bench-match', 'x', rinq_equal('group', '3'), to_jsonb(i))) FROM generate_series(1, %d) i" % multicasts,
                       timeout=120)
            wait_until(received, lambda n: n >= before + multicasts * GROUP, 120)
            results[count] = multicasts * GROUP / (time.monotonic() - start)
    return results


def report(results):
    def middle(what, name):
        return statistics.median(r[name] for r in results[what])

    empty, notify = middle("transactions", "empty"), middle("transactions", "notify")
    none, row, statement = (middle("triggers", name) for name in ("empty", "row", "statement"))
    rates = results["matching"]
    print("\n%-44s %12.0f" % ("empty transactions, 8 clients, per second", empty))
    print("%-44s %12.0f" % ("… with one notification each", notify))
    for label, value in (("empty trigger", none), ("rinq_notify_trigger, row", row), ("rinq_notify_trigger, statement", statement)):
        print("%-44s %12.1f" % ("INSERT, us per row: " + label, value))
    for count, rate in sorted(rates.items()):
        print("%-44s %12.0f" % ("delivered per second to 10 of %d sessions" % count, rate))
    goals = (("notify at commit, 8 clients: %.2f x empty transactions (at least 0.6)" % (notify / empty), notify >= 0.6 * empty),
             ("trigger for each row: %.1f us more than an empty one (at most 5)" % (row - none), row - none <= 5),
             ("multicast to 10 of 100,000: %.2f x the rate of 10 of 100 (at least 0.5)" % (rates[SESSIONS[-1]] / rates[SESSIONS[0]]),
              rates[SESSIONS[-1]] >= 0.5 * rates[SESSIONS[0]]))
    print()
    for text, reached in goals:
        print("%-80s %s" % (text, "reached" if reached else "MISSED"))
    return all(reached for _, reached in goals)
