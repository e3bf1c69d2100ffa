// npm install @opentelemetry/api-logs @opentelemetry/sdk-logs @opentelemetry/resources @opentelemetry/exporter-logs-otlp-grpc   (tried with 0.223)
//
// By itself this exporter never tries again, whatever the answer: a batch that is refused, or sent while Logseal is away, is lost. So this one
// tries again for ten minutes, unless an answer says that the batch will never be taken. Meanwhile records wait in the processor's queue, in
// memory, and new ones are dropped when it is full. What must outlast more, or the end of this process, goes to a local collector:
// collector.yaml listens on 127.0.0.1:14317 and needs no key.
import { createRequire } from "node:module";
import { setTimeout as wait } from "node:timers/promises";
import { logs } from "@opentelemetry/api-logs";
import { OTLPLogExporter } from "@opentelemetry/exporter-logs-otlp-grpc";
import { resourceFromAttributes } from "@opentelemetry/resources";
import { BatchLogRecordProcessor, LoggerProvider } from "@opentelemetry/sdk-logs";

const { Metadata, status } = createRequire(import.meta.url)("@grpc/grpc-js");
const PATIENCE_MS = 600_000;
const SUCCESS = 0;
// The codes that OTLP lets a client try again on, RESOURCE_EXHAUSTED only with an answer that says when.
const RETRYABLE = [status.CANCELLED, status.DEADLINE_EXCEEDED, status.ABORTED, status.OUT_OF_RANGE, status.UNAVAILABLE, status.DATA_LOSS];

const isRetryable = (error) =>
  RETRYABLE.includes(error?.code) || (error?.code === status.RESOURCE_EXHAUSTED && error.metadata?.get("grpc-status-details-bin").length > 0);

class PersistentExporter extends OTLPLogExporter {
  async export(records, done) {
    const giveUp = Date.now() + PATIENCE_MS;
    for (let delay = 1_000; ; delay = Math.min(2 * delay, 10_000)) {
      const result = await new Promise((answered) => super.export(records, answered));
      if (result.code === SUCCESS || !isRetryable(result.error) || Date.now() > giveUp) return done(result);
      await wait(delay * (0.5 + Math.random() / 2));
    }
  }
}

const metadata = new Metadata();
if (process.env.LOGSEAL_WORKSPACE_KEY) {
  metadata.set("authorization", `Bearer ${process.env.LOGSEAL_WORKSPACE_KEY}`);
}
export const exporter = new PersistentExporter({
  url: process.env.LOGSEAL_ENDPOINT ?? "http://127.0.0.1:14317", // https://... for TLS, with an own authority OTEL_EXPORTER_OTLP_CERTIFICATE=ca.pem
  metadata,
  compression: "gzip",
  timeoutMillis: 15_000, // a call may be held for ingest.hold_ms (5 s) under load
});
export const provider = new LoggerProvider({
  resource: resourceFromAttributes({ "service.name": "payments" }),
  processors: [
    new BatchLogRecordProcessor({
      exporter,
      maxQueueSize: 100_000,
      maxExportBatchSize: 1_000,
      scheduledDelayMillis: 1_000,
      exportTimeoutMillis: PATIENCE_MS + 60_000, // otherwise the next batch goes its own way after 30 s
    }),
  ],
});
logs.setGlobalLoggerProvider(provider);
// At the end of the process: await provider.shutdown(), which sends what waits.
