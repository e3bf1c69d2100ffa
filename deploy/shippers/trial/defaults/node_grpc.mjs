// The exporter of Node over gRPC as it is with nothing set but address, key and compression.
import { createRequire } from "node:module";
import { OTLPLogExporter } from "@opentelemetry/exporter-logs-otlp-grpc";
import { BatchLogRecordProcessor, LoggerProvider } from "@opentelemetry/sdk-logs";

const { Metadata } = createRequire(import.meta.url)("@grpc/grpc-js");
const metadata = new Metadata();
metadata.set("authorization", `Bearer ${process.env.LOGSEAL_WORKSPACE_KEY}`);
export const exporter = new OTLPLogExporter({ url: process.env.LOGSEAL_ENDPOINT, metadata, compression: "gzip" });
export const provider = new LoggerProvider({ processors: [new BatchLogRecordProcessor({ exporter })] });
