"""Orders in SQLite."""
import logging
import sqlite3
import threading

log = logging.getLogger("shop.store")


class OutOfStock(Exception):
    pass


class OrderStore:
    def __init__(self, path):
        self.lock = threading.Lock()
        self.db = sqlite3.connect(path, check_same_thread=False)
        self.db.executescript(
            "CREATE TABLE orders (id INTEGER PRIMARY KEY, customer TEXT NOT NULL, total TEXT CHECK (total <> '0'));"
        )
        self.db.set_trace_callback(lambda sql: log.debug("sql: %s", sql))

    def add(self, order, total):
        if any(int(line["count"]) > 90 for line in order["lines"]):
            raise OutOfStock(f"{order['lines'][0]['item']}: fewer than {order['lines'][0]['count']} left")
        with self.lock, self.db:
            return self.db.execute("INSERT INTO orders (customer, total)\nVALUES (?, ?)", (order.get("customer"), total)).lastrowid

    def order(self, number):
        with self.lock:
            row = self.db.execute("SELECT id, customer, total FROM orders WHERE id = ?", (int(number),)).fetchone()
        return dict(zip(("id", "customer", "total"), row))

    def latest(self):
        with self.lock:
            return self.db.execute("SELECT id, customer, total\n  FROM orders\n ORDER BY id DESC\n LIMIT 5").fetchall()

    def report(self, path):
        column = path.partition("by=")[2] or "customer"
        with self.lock:
            return self.db.execute(f"SELECT {column}, count(*) FROM orders GROUP BY 1").fetchall()
