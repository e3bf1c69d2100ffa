"""Order service: a small HTTP application on SQLite whose failures are real exceptions."""
import json
import logging
import sqlite3
import time
from http.server import BaseHTTPRequestHandler, ThreadingHTTPServer

from pricing import price_of
from store import OrderStore, OutOfStock

log = logging.getLogger("shop.orders")


class Handler(BaseHTTPRequestHandler):
    protocol_version = "HTTP/1.1"

    def do_GET(self):
        self.route()

    def do_POST(self):
        self.route()

    do_PUT = do_DELETE = do_PATCH = do_POST

    def route(self):
        started = time.perf_counter()
        size = int(self.headers.get("content-length") or 0)
        self.body = self.rfile.read(size) if size else b""
        try:
            status, answer = self.handle_path()
        except OutOfStock as error:
            log.warning("order refused: %s", error)
            status, answer = 409, {"error": str(error)}
        except json.JSONDecodeError as error:
            log.error("cannot read the order's body (%d bytes)", len(self.body), exc_info=error)
            status, answer = 400, {"error": "invalid JSON"}
        except Exception:
            log.exception("unhandled exception while serving %s %s", self.command, self.path)
            status, answer = 500, {"error": "internal"}
        text = json.dumps(answer, ensure_ascii=False).encode()
        self.send_response(status)
        self.send_header("content-type", "application/json")
        self.send_header("content-length", str(len(text)))
        self.end_headers()
        self.wfile.write(text)
        log.info("%s %s -> %d in %.3f ms", self.command, self.path, status, (time.perf_counter() - started) * 1e3)

    def handle_path(self):
        path = self.path.split("?")[0]
        if path == "/api/slow":
            log.debug("sleeping past the proxy's read timeout")
            time.sleep(1.3)
            return 200, {}
        if path.startswith("/api/orders/"):
            return 200, STORE.order(path.rsplit("/", 1)[1])
        if path == "/api/orders" and self.command == "POST":
            order = json.loads(self.body)
            total = price_of(order)
            return 201, {"id": STORE.add(order, total), "total": total}
        if path == "/api/orders":
            return 200, STORE.latest()
        if path == "/api/report":
            return 200, STORE.report(self.path)
        if path == "/login":
            return 200, {"ok": True}
        return 404, {"error": "no such route"}

    def log_message(self, form, *args):
        log.debug(form, *args)


if __name__ == "__main__":
    logging.basicConfig(
        filename="/srv/shop/log/orders.log",
        level=logging.DEBUG,
        encoding="utf-8",
        format="%(asctime)s %(levelname)-8s [%(threadName)s] %(name)s %(module)s:%(lineno)d - %(message)s",
    )
    logging.captureWarnings(True)
    STORE = OrderStore(":memory:")
    log.info("listening on 127.0.0.1:8089, sqlite %s", sqlite3.sqlite_version)
    ThreadingHTTPServer(("127.0.0.1", 8089), Handler).serve_forever()
