// npm install @opentelemetry/api-logs @opentelemetry/sdk-logs @opentelemetry/resources @opentelemetry/exporter-logs-otlp-grpc   (tried with 0.223)
//
// This exporter never tries again, whatever the answer: a batch that is refused, or sent while Logseal is away, is lost. Logseal holds
// calls for ingest.hold_ms before it refuses one, which covers a busy moment and no restart. So ship to a local collector, whose
// queue outlasts that: collector.yaml listens on 127.0.0.1:14317 and needs no key.
import { createRequire } from "node:module";
import { logs } from "@opentelemetry/api-logs";
import { OTLPLogExporter } from "@opentelemetry/exporter-logs-otlp-grpc";
import { resourceFromAttributes } from "@opentelemetry/resources";
import { BatchLogRecordProcessor, LoggerProvider } from "@opentelemetry/sdk-logs";

const { Metadata } = createRequire(import.meta.url)("@grpc/grpc-js");
const metadata = new Metadata();
if (process.env.LOGSEAL_WORKSPACE_KEY) {
  metadata.set("authorization", `Bearer ${process.env.LOGSEAL_WORKSPACE_KEY}`);
}
const exporter = new OTLPLogExporter({
  url: process.env.LOGSEAL_ENDPOINT ?? "http://127.0.0.1:14317", // https://... for TLS, with an own authority OTEL_EXPORTER_OTLP_CERTIFICATE=ca.pem
  metadata,
  compression: "gzip",
  timeoutMillis: 15_000,
});
export const provider = new LoggerProvider({
  resource: resourceFromAttributes({ "service.name": "payments" }),
  processors: [new BatchLogRecordProcessor({ exporter, maxQueueSize: 100_000, maxExportBatchSize: 1_000, scheduledDelayMillis: 1_000 })],
});
logs.setGlobalLoggerProvider(provider);
// At the end of the process: await provider.shutdown(), which sends what waits.
