# pip install opentelemetry-sdk opentelemetry-exporter-otlp-proto-grpc     (tried with 1.45)
#
# By itself the exporter gives a batch up after 10 s or six tries, whichever comes first; a longer `timeout` alone does not help. So this one
# tries again for ten minutes, whatever was answered. Meanwhile records wait in the processor's queue, in memory, and the oldest are dropped
# when it is full. At the end of the process `provider.shutdown()` sends what waits, for 30 s at most. What must outlast more goes to a local
# collector: collector.yaml listens on 127.0.0.1:14317 and needs no key.
import logging
import os
import threading
import time

import grpc
from opentelemetry.exporter.otlp.proto.grpc._log_exporter import OTLPLogExporter
from opentelemetry.sdk._logs import LoggerProvider, LoggingHandler
from opentelemetry.sdk._logs.export import BatchLogRecordProcessor, LogRecordExporter, LogRecordExportResult
from opentelemetry.sdk.resources import Resource


class PersistentExporter(LogRecordExporter):
    """An exporter that tries a batch again for `patience` seconds."""

    def __init__(self, exporter, patience):
        self._exporter = exporter
        self._patience = patience
        self._closed = threading.Event()

    def export(self, batch):
        give_up = time.monotonic() + self._patience
        while True:
            result = self._exporter.export(batch)
            if result == LogRecordExportResult.SUCCESS or time.monotonic() > give_up or self._closed.wait(1):
                return result

    def shutdown(self):
        self._closed.set()
        self._exporter.shutdown()

    def force_flush(self, timeout_millis=30_000):
        return self._exporter.force_flush(timeout_millis)


exporter = PersistentExporter(
    OTLPLogExporter(
        endpoint=os.environ["LOGSEAL_ENDPOINT"],  # https://logseal.example.org:4317, or http://127.0.0.1:4317
        # With an own authority: OTEL_EXPORTER_OTLP_CERTIFICATE=ca.pem in the environment. With a certificate that stands for the workspace
        # also OTEL_EXPORTER_OTLP_CLIENT_CERTIFICATE and OTEL_EXPORTER_OTLP_CLIENT_KEY, and no headers here.
        headers={"authorization": "Bearer " + os.environ["LOGSEAL_WORKSPACE_KEY"]},
        compression=grpc.Compression.Gzip,
        timeout=15,  # seconds; a call may be held for ingest.hold_ms (5 s) under load
    ),
    patience=600,
)
provider = LoggerProvider(resource=Resource.create({"service.name": "payments"}))
provider.add_log_record_processor(
    BatchLogRecordProcessor(exporter, max_queue_size=100_000, max_export_batch_size=1_000, schedule_delay_millis=1_000)
)
logging.getLogger().addHandler(LoggingHandler(logger_provider=provider))
logging.getLogger().setLevel(logging.INFO)
# At the end of the process: provider.shutdown().
