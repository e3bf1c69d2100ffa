"""Runs stock shippers against a Logseal server through its bad moments, and counts what became of each record.

Prints a table in Markdown. Ends with 1 if a record was lost that the server had acknowledged, if a stored configuration (of deploy/shippers)
lost any at all, if a Collector with its default retries gave one up, or anybody did in a stall shorter than `ingest.hold_ms`.
README.md beside this file has the command.
"""

import argparse
import json
import os
import signal
import subprocess
import sys
import tempfile
import threading
import time
import urllib.request

from logseal import Server
from shippers import shippers

WARM, COOL = 12, 12  # seconds of shipping before and after each event


def stall(server):
    """The whole process stands still for 4 s of the 5 s that a call may be held."""
    server.signal(signal.SIGSTOP)
    time.sleep(4)
    server.signal(signal.SIGCONT)


def held(server):
    """Another shipper of the workspace runs it into a debt of its rate: calls are held for some 3 s."""
    server.run("bench", "ingest", "--records", "12000", "--batch", "12000", "--connections", "1", "--in-flight", "1")
    time.sleep(4)


def restart(server):
    """Stopped and started, and 10 s later killed and started."""
    server.stop()
    server.start()
    time.sleep(10)
    server.kill()
    server.start()


def revocation(server):
    """The cluster is without its key for 30 s."""
    server.run("vault", "key", "disable", "kek")
    server.until("Revoked")
    time.sleep(30)
    server.run("vault", "key", "enable", "kek")
    server.until("Active")


def overload(server):
    """For 60 s another shipper of the workspace sends as much as it can, 512 requests at a time."""
    command = [server.program, "bench", "ingest", "--data-dir", server.data, "--records", "1000000000", "--connections", "32"]
    with subprocess.Popen([*command, "--in-flight", "16"], stdout=server.log, stderr=server.log) as bench:
        time.sleep(60)
        bench.kill()


def outage(server):
    """Away for more than five minutes."""
    server.stop()
    time.sleep(320)
    server.start()


# Name, what is said of it, what happens, settings of the server.
EVENTS = [
    ("stall", "stall of 4 s", stall, []),
    ("held", "calls held for 3 s", held, ["ingest.workspace_bytes_per_second=1000000"]),
    ("restart", "stopped and started, then killed and started", restart, []),
    ("revocation", "key revoked for 30 s", revocation, []),
    (
        "overload",
        "overload for 60 s",
        overload,
        # So small that it has to refuse calls: 24 MiB for requests, 16 calls held for a second.
        [
            "ingest.max_request_bytes=4194304",
            "ingest.memory_budget_bytes=67108864",
            "ingest.max_held_calls=16",
            "ingest.hold_ms=1000",
        ],
    ),
    ("outage", "away for 320 s", outage, []),
]


def settled(running, quiet=150, limit=900):
    """Waits until each shipper knows what became of each record, or nothing has moved for longer than a gRPC connection waits
    between two attempts (two minutes)."""
    last, since, started = None, time.monotonic(), time.monotonic()
    while True:
        pending = [shipper.pending() for shipper in running]
        if pending != last:
            last, since = pending, time.monotonic()
        now = time.monotonic()
        if all(count <= 0 for count in pending) or now - since > quiet or now - started > limit:
            return
        time.sleep(2)


def answers(server):
    """What the server counts of the calls that it answered, and of the time that this took: whether an event was one."""
    request = urllib.request.Request(f"http://127.0.0.1:{server.ports['management']}/metrics")
    request.add_header("authorization", f"Bearer {server.management_token}")
    with urllib.request.urlopen(request, timeout=30) as answer:
        lines = answer.read().decode().splitlines()
    names = ("logseal_ingest_requests_total", "logseal_ingest_acknowledgement_seconds_sum")
    return [line for line in lines if line.startswith(names) and not line.endswith(" 0")]


def trial(event, chosen, arguments):
    """What became of the records of each shipper in one event, by the shipper's name."""
    name, _, happen, settings = event
    folder = tempfile.mkdtemp(prefix=f"{name}-", dir=arguments.folder)
    server = Server(arguments.logseal, folder, settings)
    print(f"{name}: in {folder}", file=sys.stderr, flush=True)
    running = []
    try:
        for shipper, _, start in chosen:
            running.append(start(shipper, server, folder))
        time.sleep(WARM)
        happen(server)
        time.sleep(COOL)
        for line in answers(server):
            print(f"{name}: {line}", file=sys.stderr)
        return counted(name, server, running)
    finally:
        for process in [*(shipper.process for shipper in running), server.process]:
            if process.poll() is None:
                process.kill()


def counted(name, server, running):
    """Has all records sent, ends the shippers, and counts."""
    for shipper in running:
        shipper.stop_feeding()
    settled(running)
    # A program with an SDK learns the end of its last exports at its own end; the counters of the others end with them.
    counts = {shipper.name: shipper.given_up() for shipper in running if not hasattr(shipper, "exported")}
    ends = [threading.Thread(target=shipper.end) for shipper in running]
    for end in ends:
        end.start()
    for end in ends:
        end.join()
    present = server.present()
    results = {}
    for shipper in running:
        given_up = counts[shipper.name] if shipper.name in counts else shipper.given_up()
        there = [present[prefix] for prefix in shipper.sources]
        missing = shipper.sent() - sum(map(len, there))
        if hasattr(shipper, "exported"):
            lost = len(shipper.exported - present[shipper.prefix].keys())
        else:
            lost = max(0, missing - given_up)
        results[shipper.name] = {
            "sent": shipper.sent(),
            "missing": missing,
            "lost": lost,
            "given_up": given_up,
            "twice": sum(n - 1 for numbers in there for n in numbers.values()),
        }
        print(f"{name}: {shipper.name}: {json.dumps(results[shipper.name])}", file=sys.stderr, flush=True)
    server.stop()
    return results


def faults(event, results, stored):
    for name, found in results.items():
        if found["lost"]:
            yield f"{event}: {name}: {found['lost']} lost that were acknowledged"
        must_keep = stored[name] or name.startswith("Collector") or event in ("stall", "held")
        if must_keep and found["missing"]:
            yield f"{event}: {name}: {found['missing']} of {found['sent']} are not there"


def table(measured, chosen):
    events = [event for event in EVENTS if event[0] in measured]
    yield "| shipper | " + " | ".join(event[1] for event in events) + " | acknowledged and lost | there twice |"
    yield "| --- |" + " --- |" * (len(events) + 2)
    for name, _, _ in chosen:
        cells, lost, twice = [], 0, 0
        for event in events:
            found = measured[event[0]].get(name)
            if found is None:
                cells.append("-")
                continue
            cells.append(f"{found['given_up']:,} of {found['sent']:,}" if found["given_up"] else "0")
            lost, twice = lost + found["lost"], twice + found["twice"]
        yield f"| {name} | " + " | ".join(cells) + f" | {lost} | {twice} |"


def main():
    parser = argparse.ArgumentParser(description=__doc__, formatter_class=argparse.RawDescriptionHelpFormatter)
    parser.add_argument("--logseal", required=True, help="the program")
    parser.add_argument("--collector", help="an OpenTelemetry Collector")
    parser.add_argument("--fluent-bit", help="Fluent Bit")
    parser.add_argument("--python", help="a Python with the SDK and its exporters")
    parser.add_argument("--node-modules", help="a folder node_modules with the SDK and its exporters")
    parser.add_argument("--rust", help="the program of rust/")
    parser.add_argument("--events", default="stall,held,restart,revocation,overload,outage")
    parser.add_argument("--only", default="", help="shippers whose names have this in them")
    parser.add_argument("--folder", help="where data directories and logs go; kept")
    arguments = parser.parse_args()
    arguments.folder = os.path.abspath(arguments.folder or tempfile.mkdtemp(prefix="loss-table-"))
    os.makedirs(arguments.folder, exist_ok=True)
    for name in ("logseal", "collector", "fluent_bit", "python", "node_modules", "rust"):
        if value := getattr(arguments, name):
            setattr(arguments, name, os.path.abspath(value))

    every = [shipper for shipper in shippers(arguments) if arguments.only in shipper[0]]
    stored = {name: is_stored for name, is_stored, _ in every}
    measured, found = {}, []
    for event in EVENTS:
        if event[0] not in arguments.events.split(","):
            continue
        # What outlasts five minutes are the stored configurations.
        chosen = [shipper for shipper in every if event[0] != "outage" or shipper[1]]
        measured[event[0]] = trial(event, chosen, arguments)
        found += faults(event[0], measured[event[0]], stored)
    print("\n".join(table(measured, every)), flush=True)
    for fault in found:
        print(fault, file=sys.stderr)
    sys.exit(1 if found or not any(measured.values()) else 0)


if __name__ == "__main__":
    main()
