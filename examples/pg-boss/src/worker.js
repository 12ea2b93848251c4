// The worker: fulfils orders and sends mails. pg-boss delivers at least once, so both are written to happen once.

import { pool, startBoss } from "./boss.js";
import { createQueues, FULFIL, MAIL } from "./queues.js";

const OPTIONS = { batchSize: 50, pollingIntervalSeconds: 0.5 };

/** Fulfils an order, and enqueues its mail in the same transaction. */
async function fulfil(boss, { data }) {
  const client = await pool.connect();
  try {
    await client.query("begin");
    const { rowCount } = await client.query("update shop.orders set fulfilled_at = now() where id = $1 and fulfilled_at is null", [data.orderId]);
    if (rowCount === 1) {
      const db = { executeSql: (text, values) => client.query(text, values) };
      await boss.send(MAIL, { orderId: data.orderId, customerId: data.customerId }, { db });
    }
    await client.query("commit");
  } catch (error) {
    await client.query("rollback");
    throw error;
  } finally {
    client.release();
  }
}

async function mail({ data }) {
  await pool.query("insert into shop.mails (order_id) values ($1) on conflict do nothing", [data.orderId]);
}

/** One job of a batch that fails does not fail the others. */
async function each(boss, queue, jobs, handle) {
  await Promise.all(
    jobs.map((job) =>
      handle(job).catch((error) => {
        console.error(`${queue} ${job.id}: ${error.message}`);
        return boss.fail(queue, job.id, { message: error.message });
      }),
    ),
  );
}

const boss = await startBoss({ maintenanceIntervalSeconds: 5 });
await createQueues(boss);
await boss.work(FULFIL, OPTIONS, (jobs) => each(boss, FULFIL, jobs, (job) => fulfil(boss, job)));
await boss.work(MAIL, OPTIONS, (jobs) => each(boss, MAIL, jobs, mail));
console.log("working");

process.on("SIGTERM", async () => {
  await boss.stop({ graceful: true, timeout: 4000 });
  await pool.end();
  process.exit(0);
});
