# pip install opentelemetry-sdk opentelemetry-exporter-otlp-proto-grpc     (tried with 1.45)
#
# In a stall the exporter tries again until `timeout` is over, then drops the batch; the default is 10 s. Meanwhile records wait in the
# processor's queue, in memory, and the oldest are dropped when it is full. What must outlast more, or the end of this process, goes
# to a local collector: collector.yaml listens on 127.0.0.1:14317 and needs no key.
import logging
import os

import grpc
from opentelemetry.exporter.otlp.proto.grpc._log_exporter import OTLPLogExporter
from opentelemetry.sdk._logs import LoggerProvider, LoggingHandler
from opentelemetry.sdk._logs.export import BatchLogRecordProcessor
from opentelemetry.sdk.resources import Resource

exporter = OTLPLogExporter(
    endpoint=os.environ["LOGSEAL_ENDPOINT"],  # https://logseal.example.org:4317, or http://127.0.0.1:4317
    # With an own authority: OTEL_EXPORTER_OTLP_CERTIFICATE=ca.pem in the environment. With a certificate that stands for the workspace also
    # OTEL_EXPORTER_OTLP_CLIENT_CERTIFICATE and OTEL_EXPORTER_OTLP_CLIENT_KEY, and no headers here.
    headers={"authorization": "Bearer " + os.environ["LOGSEAL_WORKSPACE_KEY"]},
    compression=grpc.Compression.Gzip,
    timeout=600,  # seconds for a batch with all its tries
)
provider = LoggerProvider(resource=Resource.create({"service.name": "payments"}))
provider.add_log_record_processor(
    BatchLogRecordProcessor(exporter, max_queue_size=100_000, max_export_batch_size=1_000, schedule_delay_millis=1_000)
)
logging.getLogger().addHandler(LoggingHandler(logger_provider=provider))
logging.getLogger().setLevel(logging.INFO)
# At the end of the process: provider.shutdown(), which sends what waits.
