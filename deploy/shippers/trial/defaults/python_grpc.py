# The exporter of Python over gRPC as it is with nothing set but address, key and compression.
import logging
import os

import grpc
from opentelemetry.exporter.otlp.proto.grpc._log_exporter import OTLPLogExporter
from opentelemetry.sdk._logs import LoggerProvider, LoggingHandler
from opentelemetry.sdk._logs.export import BatchLogRecordProcessor

exporter = OTLPLogExporter(
    endpoint=os.environ["LOGSEAL_ENDPOINT"],
    headers={"authorization": "Bearer " + os.environ["LOGSEAL_WORKSPACE_KEY"]},
    compression=grpc.Compression.Gzip,
)
provider = LoggerProvider()
provider.add_log_record_processor(BatchLogRecordProcessor(exporter))
logging.getLogger().addHandler(LoggingHandler(logger_provider=provider))
logging.getLogger().setLevel(logging.INFO)
