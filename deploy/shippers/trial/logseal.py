"""A Logseal server on a temporary data directory, whose cluster has a customer-managed key in the embedded vault."""

import collections
import json
import os
import signal
import socket
import subprocess
import threading
import time


def free_port():
    with socket.socket() as probe:
        probe.bind(("127.0.0.1", 0))
        return probe.getsockname()[1]


def follow(pipe, take):
    """Reads `pipe` to its end in the background, so that whoever writes into it never waits."""
    thread = threading.Thread(target=lambda: [take(line) for line in pipe], daemon=True)
    thread.start()
    return thread


class Server:
    # Probes come soon, so that a revocation begins and ends within seconds.
    SETTINGS = ["keys.probe_interval_ms=1000"]

    def __init__(self, program, folder, settings=()):
        self.program, self.data = program, os.path.join(folder, "data")
        self.ports = {name: free_port() for name in ("otlp-grpc", "otlp-http", "management", "vault")}
        self.settings = [*self.SETTINGS, *settings]
        self.log = open(os.path.join(folder, "logseal.log"), "ab")
        self.start()
        with open(os.path.join(self.data, "credentials.json")) as file:
            credentials = json.load(file)
        self.workspace_key, self.management_token = credentials["workspaceKey"], credentials["managementToken"]
        self.run("vault", "key", "create", "kek", "--size", "2048")
        self.run("cluster", "update", "local", "--key-name", "kek")

    @property
    def grpc(self):
        return f"127.0.0.1:{self.ports['otlp-grpc']}"

    @property
    def http(self):
        return f"http://127.0.0.1:{self.ports['otlp-http']}"

    def start(self):
        command = [self.program, "serve", "--data-dir", self.data]
        for name, port in self.ports.items():
            command += [f"--{name}", f"127.0.0.1:{port}"]
        for setting in self.settings:
            command += ["--set", setting]
        self.process = subprocess.Popen(command, stdout=subprocess.PIPE, stderr=self.log, text=True)
        line = self.process.stdout.readline()
        if not line.startswith("logseal ready"):
            raise RuntimeError(f"the server did not start: {line!r}, see {self.log.name}")

    def stop(self):
        self.process.send_signal(signal.SIGTERM)
        if self.process.wait(60) != 0:
            raise RuntimeError("the server did not stop cleanly")

    def kill(self):
        self.process.kill()
        self.process.wait(60)

    def signal(self, number):
        self.process.send_signal(number)

    def run(self, *arguments):
        command = [self.program, *arguments, "--data-dir", self.data]
        done = subprocess.run(command, capture_output=True, text=True, timeout=180)
        if done.returncode != 0:
            raise RuntimeError(f"{' '.join(arguments)}: {done.stderr}")
        return done.stdout

    def until(self, state):
        limit = time.monotonic() + 90
        while time.monotonic() < limit:
            shown = json.loads(self.run("cluster", "show", "local", "--json"))["properties"]["keyState"]
            if shown["state"] == state:
                return
            time.sleep(0.5)
        raise RuntimeError(f"not {state}: {shown}")

    def present(self):
        """How often each numbered record is there, by its shipper."""
        sql = "SELECT body, count(*) AS n FROM logs WHERE body LIKE 'trial-%' GROUP BY body"
        found = collections.defaultdict(dict)
        for row in json.loads(self.run("query", sql, "--format", "json")):
            prefix, number = row["body"].rsplit(" ", 1)
            found[prefix][int(number)] = row["n"]
        return found
