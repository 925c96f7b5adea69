"""The part of the benchmark that is about durable calls: making them, beside durable commands, and having them answered and handled."""

import statistics
import time

from rinqtest.waiting import wait_until

EXECUTE = "SELECT rinq_execute('bench-idle', 'x', '{\"id\": 12345}'::jsonb);\n"
CALL = "SELECT rinq_call_durable('bench-idle', 'x', '{\"id\": 12345}'::jsonb);\n"
MANY = 5000


def prepare(database):
    database.handler("bench_answer", "RETURN req.payload;")
    database.listen("bench-answer", "bench_answer")
    database.sql("CREATE TABLE IF NOT EXISTS bench_handled (id text);"
                 "CREATE OR REPLACE FUNCTION bench_outcome(r rinq_response) RETURNS void LANGUAGE sql AS 'INSERT INTO bench_handled VALUES (r.id)'")


def once(database, pgbench, tps, seconds):
    """Transactions per second with 8 clients that send one message each, and calls per second until their outcome is handled."""
    results = {}
    for name, script in (("execute", EXECUTE), ("call", CALL)):
        results[name] = tps(pgbench(script, 8, "-T", seconds)[0])
        wait_until(lambda: database.value("SELECT depth FROM rinq_outbox_status"), lambda n: n == "0", 120)
    database.sql("TRUNCATE bench_handled")
    start = time.monotonic()
    database.sql("SELECT count(rinq_call_durable('bench-answer', 'x', to_jsonb(i), 'bench_outcome(rinq_response)')) FROM generate_series(1, %d) i" % MANY, timeout=120)
    wait_until(lambda: int(database.value("SELECT count(*) FROM bench_handled")), lambda n: n >= MANY, 300)
    results["handled"] = MANY / (time.monotonic() - start)
    return results


def report(rounds):
    execute, call, handled = (statistics.median(r[name] for r in rounds) for name in ("execute", "call", "handled"))
    print("\n%-44s %12.0f" % ("rinq_execute, durable, 8 clients, per second", execute))
    print("%-44s %12.0f" % ("rinq_call_durable, 8 clients, per second", call))
    print("%-44s %12.0f" % ("… served, answered and handled, per second", handled))
    reached = call >= 0.5 * execute
    print("\n%-80s %s" % ("rinq_call_durable: %.2f x durable rinq_execute (at least 0.5)" % (call / execute), "reached" if reached else "MISSED"))
    return reached
