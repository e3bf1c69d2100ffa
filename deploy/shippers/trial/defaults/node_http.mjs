// The exporter of Node over HTTP as it is with nothing set but address, key and compression.
import { OTLPLogExporter } from "@opentelemetry/exporter-logs-otlp-proto";
import { BatchLogRecordProcessor, LoggerProvider } from "@opentelemetry/sdk-logs";

export const exporter = new OTLPLogExporter({
  url: `${process.env.LOGSEAL_HTTP_ENDPOINT}/v1/logs`,
  headers: { authorization: `Bearer ${process.env.LOGSEAL_WORKSPACE_KEY}` },
  compression: "gzip",
});
export const provider = new LoggerProvider({ processors: [new BatchLogRecordProcessor({ exporter })] });
