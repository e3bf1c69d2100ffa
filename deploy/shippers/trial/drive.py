"""Ships numbered records with the Python exporter of the configuration given, and tells how each export ended.

Records `PREFIX 000001`, `PREFIX 000002` and so on at a steady rate until a line comes on stdin; a line of JSON on stdout for each export, with
the numbers that were in it; `shutdown` and the end when stdin is closed.
"""

import json
import logging
import runpy
import sys
import threading
import time


def main():
    path, prefix, rate = sys.argv[1:]
    configuration = runpy.run_path(path)
    exporter, provider = configuration["exporter"], configuration["provider"]
    export = exporter.export

    def recorded(batch):
        numbers = [int(item.log_record.body.rsplit(" ", 1)[1]) for item in batch]
        result = export(batch)
        print(json.dumps({"ok": result.name == "SUCCESS", "numbers": numbers}), flush=True)
        return result

    exporter.export = recorded
    # What the exporter itself logs goes to stderr, not back into it.
    library = logging.getLogger("opentelemetry")
    library.addHandler(logging.StreamHandler())
    library.propagate = False

    stop = threading.Event()
    threading.Thread(target=lambda: (sys.stdin.readline(), stop.set()), daemon=True).start()
    logger = logging.getLogger("trial")
    emitted, started = 0, time.monotonic()
    while not stop.wait(max(0.0, started + emitted / float(rate) - time.monotonic())):
        emitted += 1
        logger.info("%s %06d", prefix, emitted)
    print(json.dumps({"emitted": emitted}), flush=True)
    sys.stdin.read()
    provider.shutdown()


main()
