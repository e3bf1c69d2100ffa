// Ships numbered records with the Node exporter of the configuration given, and tells how each export ended; as drive.py does.
import { createInterface } from "node:readline";
import { pathToFileURL } from "node:url";

const [path, prefix, rate] = process.argv.slice(2);
const { exporter, provider } = await import(pathToFileURL(path));
const say = (what) => process.stdout.write(`${JSON.stringify(what)}\n`);

const send = exporter.export.bind(exporter);
exporter.export = (records, done) => {
  const numbers = records.map((record) => Number(record.body.split(" ").at(-1)));
  send(records, (result) => {
    if (result.code !== 0) console.error(`${numbers.length} records given up: ${result.error}`);
    say({ ok: result.code === 0, numbers });
    done(result);
  });
};

const logger = provider.getLogger("trial");
let emitted = 0;
const started = Date.now();
const ticks = setInterval(() => {
  for (const due = ((Date.now() - started) * rate) / 1_000; emitted < due; ) {
    emitted += 1;
    logger.emit({ body: `${prefix} ${String(emitted).padStart(6, "0")}` });
  }
}, 20);
const commands = createInterface({ input: process.stdin });
commands.once("line", () => {
  clearInterval(ticks);
  say({ emitted });
});
commands.once("close", async () => {
  await provider.shutdown();
  process.exit(0);
});
