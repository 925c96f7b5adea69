"""The order saga of docs/durable-calls.md, run as it stands there, while the server is killed again and again: each order ends, with the effects that belong to its end."""

import os
import random
import re

from rinqtest import case
from rinqtest.waiting import wait_until

DOCUMENT = os.path.join(os.path.dirname(os.path.dirname(os.path.abspath(__file__))), "docs", "durable-calls.md")
ORDERS = 24
KILLS = 3


def blocks():
    """The SQL of the saga and of its services."""
    with open(DOCUMENT) as file:
        text = file.read()
    return re.findall(r"```sql\n(.*?)```", text.partition("## An order saga")[2], re.S)


def expected(order):
    if order % 3 == 0:
        return "undone", {("stock", "reserve"), ("stock", "release")}
    if order % 5 == 0:
        return "undone", {("stock", "reserve"), ("payment", "charge"), ("payment", "refund"), ("stock", "release")}
    return "done", {("stock", "reserve"), ("payment", "charge"), ("shipping", "ship")}


class Saga(case.Case):
    @classmethod
    def make_world(cls):
        world = case.new_world("saga")
        cls.addClassCleanup(world.close)
        return world

    def test_orders_survive_kill_9(self):
        seed = random.randrange(1 << 30)
        rng = random.Random(seed)
        db = self.world.database()
        for block in blocks():
            db.sql(block)
        db.sql("SELECT rinq_wait_ready()")
        at = {rng.randrange(4, ORDERS) for _ in range(KILLS)}
        done = lambda: int(db.value("SELECT count(*) FROM orders WHERE state IN ('done', 'undone')"))
        for order in range(1, ORDERS + 1):
            db.sql("SELECT place_order(%d)" % order)
            if order in at:
                wait_until(done, lambda n: n >= rng.randrange(0, order // 2), description="some orders to end; seed %d" % seed)
                self.server.kill()
                self.server.start()
        wait_until(done, lambda n: n == ORDERS, 60, "all orders to end; seed %d" % seed)
        for order in range(1, ORDERS + 1):
            state, effects = expected(order)
            self.assertEqual(db.value("SELECT state FROM orders WHERE id = %d" % order), state, "order %d, seed %d" % (order, seed))
            found = db.value("SELECT string_agg(service || ' ' || command, ',' ORDER BY service, command) FROM effects WHERE order_id = %d" % order)
            self.assertEqual({tuple(e.split(" ")) for e in found.split(",")}, effects, "order %d, seed %d" % (order, seed))
        self.assertEqual(db.value("SELECT count(*) FROM saga"), "0")
        self.assertEqual(db.value("SELECT count(*) FROM rinq_durable_calls"), "0")
