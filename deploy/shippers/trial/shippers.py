"""Shippers with their configurations: each is started, fed with numbered records, and asked what became of them by its own account."""

import json
import os
import re
import shutil
import subprocess
import threading
import time
import urllib.error
import urllib.request

from logseal import follow, free_port

HERE = os.path.dirname(os.path.abspath(__file__))
STORED = os.path.dirname(HERE)
DEFAULTS = os.path.join(HERE, "defaults")
RATE = 50  # records a second and source


class Shipper:
    """A program that ships. `sources` are the prefixes of the records that it is given, with how many there are so far."""

    # Records that it may have given up stay in its own count; None where it has none of its own.
    def __init__(self, name, configuration, server, folder):
        self.name, self.configuration, self.server = name, configuration, server
        self.folder = os.path.join(folder, re.sub(r"\W+", "-", name))
        os.makedirs(self.folder)
        self.log = open(os.path.join(self.folder, "log"), "ab")
        self.sources = {}
        self.prefix = "trial-" + re.sub(r"\W+", "-", name)
        self.environment = {
            **os.environ,
            "LOGSEAL_WORKSPACE_KEY": server.workspace_key,
            "LOGSEAL_HTTP_ENDPOINT": server.http,
        }

    def spawn(self, command, **more):
        return subprocess.Popen(command, env=self.environment, cwd=self.folder, stderr=self.log, **more)

    def sent(self):
        return sum(self.sources.values())

    def metrics(self, address):
        with urllib.request.urlopen(address, timeout=10) as answer:
            return answer.read().decode()

    def feed_file(self, path):
        """Appends lines to `path` at the usual rate until it is stopped."""
        prefix = f"{self.prefix}-file"
        self.sources[prefix] = 0
        self.stopped = threading.Event()

        def feed():
            started = time.monotonic()
            with open(path, "a", buffering=1) as file:
                while not self.stopped.wait(max(0.0, started + self.sources[prefix] / RATE - time.monotonic())):
                    file.write(f"{prefix} {self.sources[prefix] + 1:06}\n")
                    self.sources[prefix] += 1

        self.feeders = [threading.Thread(target=feed, daemon=True)]
        self.feeders[0].start()

    def stop_feeding(self):
        self.stopped.set()
        for feeder in self.feeders:
            feeder.join()

    def end(self):
        self.process.terminate()
        try:
            self.process.wait(60)
        except subprocess.TimeoutExpired:
            self.process.kill()
            self.process.wait()


class Collector(Shipper):
    """Reads a file, and takes OTLP over HTTP from a client that tries again until its request is taken."""

    def __init__(self, program, *arguments):
        super().__init__(*arguments)
        host, ports = "127.0.0.1", [free_port() for _ in range(3)]
        self.telemetry, self.otlp = f"http://{host}:{ports[0]}/metrics", f"http://{host}:{ports[1]}/v1/logs"
        file = os.path.join(self.folder, "app.log")
        self.environment |= {
            "LOGSEAL_ENDPOINT": self.server.grpc,
            "LOGSEAL_INSECURE": "true",
            "COLLECTOR_STORAGE": os.path.join(self.folder, "storage"),
            "COLLECTOR_FILES": file,
            "COLLECTOR_OTLP": f"{host}:{ports[2]}",
            "COLLECTOR_OTLP_HTTP": f"{host}:{ports[1]}",
        }
        # Where its own counters are is all that is added to the configuration: several run beside each other.
        own = os.path.join(self.folder, "telemetry.yaml")
        with open(own, "w") as text:
            reader = {"pull": {"exporter": {"prometheus": {"host": host, "port": ports[0]}}}}
            json.dump({"service": {"telemetry": {"metrics": {"readers": [reader]}}}}, text)
        self.feed_file(file)
        command = [program, "--config", self.configuration, "--config", own]
        self.process = self.spawn(command, stdout=self.log)
        prefix = f"{self.prefix}-otlp"
        self.sources[prefix] = 0
        self.feeders.append(threading.Thread(target=self.feed_otlp, args=(prefix,), daemon=True))
        self.feeders[-1].start()

    def feed_otlp(self, prefix):
        """Ten requests a second."""
        started = time.monotonic()
        while not self.stopped.wait(max(0.0, started + self.sources[prefix] / RATE - time.monotonic())):
            first, count = self.sources[prefix] + 1, RATE // 10
            records = [{"body": {"stringValue": f"{prefix} {n:06}"}} for n in range(first, first + count)]
            body = json.dumps({"resourceLogs": [{"scopeLogs": [{"logRecords": records}]}]}).encode()
            request = urllib.request.Request(self.otlp, body, {"content-type": "application/json"})
            while True:
                try:
                    with urllib.request.urlopen(request, timeout=30) as answer:
                        answer.read()
                    break
                except (urllib.error.URLError, OSError):
                    # Also while it starts.
                    time.sleep(0.2)
            self.sources[prefix] += count

    def counters(self):
        text, found = self.metrics(self.telemetry), {}
        for line in text.splitlines():
            if match := re.match(r"otelcol_(\w+?)(?:_total)?(?:\{.*\})? (\S+)$", line):
                found[match[1]] = found.get(match[1], 0) + float(match[2])
        return found

    def given_up(self):
        """By its counters: exports that failed for good, records for which its queue had no place, and those that a receiver could not hand on
        and whose sender (a file) does not come again."""
        counters = self.counters()
        names = ("exporter_send_failed_log_records", "exporter_enqueue_failed_log_records")
        return int(sum(counters.get(name, 0) for name in names))

    def pending(self):
        return self.sent() - int(self.counters().get("exporter_sent_log_records", 0)) - self.given_up()


class FluentBit(Shipper):
    """Reads a file."""

    def __init__(self, program, *arguments):
        super().__init__(*arguments)
        self.port = free_port()
        file, storage = os.path.join(self.folder, "app.log"), os.path.join(self.folder, "storage")
        os.makedirs(storage)
        protocol = "otlp-http" if "http" in os.path.basename(self.configuration) else "otlp-grpc"
        self.environment |= {
            "LOGSEAL_HOST": "127.0.0.1",
            "LOGSEAL_PORT": str(self.server.ports[protocol]),
            "LOGSEAL_TLS": "off",
            "FLUENT_BIT_FILES": file,
            "FLUENT_BIT_STORAGE": storage,
        }
        self.feed_file(file)
        # Where its own counters are comes on the command line.
        self.process = self.spawn(
            [program, "-c", self.configuration, "-H", "-L", "127.0.0.1", "-P", str(self.port)], stdout=self.log
        )

    def output(self):
        shown = json.loads(self.metrics(f"http://127.0.0.1:{self.port}/api/v1/metrics"))
        return shown["output"]["opentelemetry.0"]

    def given_up(self):
        return self.output()["dropped_records"]

    def pending(self):
        output = self.output()
        return self.sent() - output["proc_records"] - output["dropped_records"]


class Sdk(Shipper):
    """A program of one of the drivers here, which tells how each of its exporter's exports ended."""

    def __init__(self, command, endpoint, *arguments):
        super().__init__(*arguments)
        self.environment["LOGSEAL_ENDPOINT"] = endpoint
        self.exported, self.failed, self.emitted = set(), set(), None
        command = [*command, self.configuration, self.prefix, str(RATE)]
        self.process = self.spawn(command, stdin=subprocess.PIPE, stdout=subprocess.PIPE, text=True)
        self.reader = follow(self.process.stdout, self.take)

    def take(self, line):
        told = json.loads(line)
        if "emitted" in told:
            self.emitted = told["emitted"]
            self.sources[self.prefix] = self.emitted
        else:
            (self.exported if told["ok"] else self.failed).update(told["numbers"])

    def stop_feeding(self):
        self.process.stdin.write("stop\n")
        self.process.stdin.flush()
        limit = time.monotonic() + 30
        while self.emitted is None:
            if time.monotonic() > limit:
                raise RuntimeError(f"{self.name} does not stop, see {self.log.name}")
            time.sleep(0.1)

    def given_up(self):
        """What its exports did not succeed with, and what never came to an export: its queue had no place."""
        return self.emitted - len(self.exported)

    def pending(self):
        return self.emitted - len(self.exported | self.failed)

    def end(self):
        self.process.stdin.close()
        try:
            self.process.wait(90)
        except subprocess.TimeoutExpired:
            self.process.kill()
            self.process.wait()
        self.reader.join()


def node_copy(configuration, folder, modules):
    """Where Node finds packages depends on where a file is: copies beside a link to them."""
    place = os.path.join(folder, "node")
    os.makedirs(place, exist_ok=True)
    if not os.path.lexists(os.path.join(place, "node_modules")):
        os.symlink(modules, os.path.join(place, "node_modules"))
    shutil.copy(os.path.join(HERE, "drive.mjs"), place)
    return shutil.copy(configuration, place)


def shippers(programs):
    """Name, whether its configuration is the stored one, and what starts it on a server and a folder; of those whose program is given."""
    found = []

    def add(name, stored, start):
        found.append((name, stored, start))

    if programs.collector:
        for name, path in [("gRPC", "collector-grpc.yaml"), ("HTTP", "collector-http.yaml")]:
            start = lambda n, s, f, p=path: Collector(programs.collector, n, os.path.join(DEFAULTS, p), s, f)
            add(f"Collector, {name}, its defaults", False, start)
        for path in ["collector.yaml", "collector-http.yaml"]:
            start = lambda n, s, f, p=path: Collector(programs.collector, n, os.path.join(STORED, p), s, f)
            add(f"`{path}`", True, start)
    if programs.fluent_bit:
        start = lambda n, s, f: FluentBit(programs.fluent_bit, n, os.path.join(DEFAULTS, "fluent-bit.yaml"), s, f)
        add("Fluent Bit, gRPC, its defaults", False, start)
        for path in ["fluent-bit.yaml", "fluent-bit-http.yaml"]:
            start = lambda n, s, f, p=path: FluentBit(programs.fluent_bit, n, os.path.join(STORED, p), s, f)
            add(f"`{path}`", True, start)
    if programs.python:
        drive = [programs.python, "-u", os.path.join(HERE, "drive.py")]
        for name, path in [("gRPC", "python_grpc.py"), ("HTTP", "python_http.py")]:
            start = lambda n, s, f, p=path: Sdk(drive, f"http://{s.grpc}", n, os.path.join(DEFAULTS, p), s, f)
            add(f"Python, {name}, its defaults", False, start)
        start = lambda n, s, f: Sdk(drive, f"http://{s.grpc}", n, os.path.join(STORED, "python_sdk.py"), s, f)
        add("`python_sdk.py`", True, start)
    if programs.node_modules:

        def node(n, s, f, folder, path):
            copy = node_copy(os.path.join(folder, path), f, programs.node_modules)
            drive = ["node", os.path.join(os.path.dirname(copy), "drive.mjs")]
            return Sdk(drive, f"http://{s.grpc}", n, copy, s, f)

        for name, path in [("gRPC", "node_grpc.mjs"), ("HTTP", "node_http.mjs")]:
            add(f"Node, {name}, its defaults", False, lambda n, s, f, p=path: node(n, s, f, DEFAULTS, p))
        add("`node_sdk.mjs`", True, lambda n, s, f: node(n, s, f, STORED, "node_sdk.mjs"))
    if programs.rust:
        for name, stored, which in [("Rust, gRPC, its defaults", False, "defaults"), ("`rust_sdk.rs`", True, "stored")]:
            start = lambda n, s, f, w=which: Sdk([programs.rust], f"http://{s.grpc}", n, w, s, f)
            add(name, stored, start)
    return found
