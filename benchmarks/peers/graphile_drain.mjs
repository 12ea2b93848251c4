// Drains N jobs with graphile-worker in batch mode (local queue, batched completion) and prints one JSON line.
// `noop` jobs do nothing; `effect` jobs insert one row each, unique by job, which is the work that our worker does.
// Needs: npm install graphile-worker pg. Usage: DATABASE_URL=... node graphile_drain.mjs 50000 noop|effect
import { run, makeWorkerUtils } from "graphile-worker";
import pg from "pg";

const jobs = Number(process.argv[2] ?? 50000);
const mode = process.argv[3] ?? "noop";
const connectionString = process.env.DATABASE_URL;
const quiet = { debug() {}, info() {}, warn() {}, error() {} };
const { Logger } = await import("graphile-worker");
const logger = new Logger(() => (level, message) => { if (level === "error") quiet.error(message); });

const utils = await makeWorkerUtils({ connectionString, logger });
await utils.migrate();
await utils.release();

const pool = new pg.Pool({ connectionString, max: 12 });
pool.on("error", () => {});
pool.on("connect", (client) => client.on("error", () => {}));
await pool.query("create table if not exists effects (job_id bigint primary key, at timestamptz not null default now())");
await pool.query("truncate effects");
await pool.query("truncate graphile_worker._private_jobs");
await pool.query(
  `select 1 from graphile_worker.add_jobs(
     (select array_agg(row('noop', '{}'::json, null, null, null, null, null, null)::graphile_worker.job_spec)
        from generate_series(1, $1)))`, [jobs]);
await pool.query("analyze graphile_worker._private_jobs");

let done = 0, finish;
const finished = new Promise((resolve) => { finish = resolve; });
const started = process.hrtime.bigint();
const runner = await run({
  pgPool: pool, logger, concurrency: 24, noHandleSignals: true,
  taskList: { noop: async (_payload, helpers) => {
    if (mode === "effect") {
      await helpers.query("insert into effects (job_id) values ($1) on conflict do nothing", [helpers.job.id]);
    }
    if (++done === jobs) finish();
  } },
  preset: { worker: {
    concurrentJobs: 24, maxPoolSize: 12, pollInterval: 1000,
    localQueue: { size: 500, refetchDelay: { durationMs: 10 } },
    completeJobBatchDelay: 0, failJobBatchDelay: 0,
  } },
});
await finished;
while (Number((await pool.query("select count(*) n from graphile_worker._private_jobs")).rows[0].n) > 0) { /* last batch */ }
const seconds = Number(process.hrtime.bigint() - started) / 1e9;
await runner.stop();
await pool.end();
console.log(JSON.stringify({ peer: `graphile-worker ${mode}`, jobs, seconds, per_second: Math.round(jobs / seconds) }));
process.exit(0);
