# The exporter of Python over HTTP as it is with nothing set but address, key and compression.
import logging
import os

from opentelemetry.exporter.otlp.proto.http import Compression
from opentelemetry.exporter.otlp.proto.http._log_exporter import OTLPLogExporter
from opentelemetry.sdk._logs import LoggerProvider, LoggingHandler
from opentelemetry.sdk._logs.export import BatchLogRecordProcessor

exporter = OTLPLogExporter(
    endpoint=os.environ["LOGSEAL_HTTP_ENDPOINT"] + "/v1/logs",
    headers={"authorization": "Bearer " + os.environ["LOGSEAL_WORKSPACE_KEY"]},
    compression=Compression.Gzip,
)
provider = LoggerProvider()
provider.add_log_record_processor(BatchLogRecordProcessor(exporter))
logging.getLogger().addHandler(LoggingHandler(logger_provider=provider))
logging.getLogger().setLevel(logging.INFO)
