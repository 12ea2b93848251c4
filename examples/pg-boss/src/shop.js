// Customers who place orders: some at once (the first argument), then a few a second for as long as it runs.

import { pool, startBoss } from "./boss.js";
import { createQueues, FULFIL } from "./queues.js";

const AT_ONCE = Number(process.argv[2] ?? 0);
const EVERY_MS = 250;

async function place(boss) {
  const customerId = 1 + Math.floor(Math.random() * 20);
  const { rows } = await pool.query("insert into shop.orders (customer_id) values ($1) returning id", [customerId]);
  await boss.send(FULFIL, { orderId: Number(rows[0].id), customerId });
}

const boss = await startBoss({ supervise: false, schedule: false });
await createQueues(boss);
for (let n = 0; n < AT_ONCE; n += 1) {
  await place(boss);
  await new Promise((resolve) => setTimeout(resolve, 20));
}
console.log("open");
const timer = setInterval(() => place(boss).catch((error) => console.error("order:", error.message)), EVERY_MS);

process.on("SIGTERM", async () => {
  clearInterval(timer);
  await boss.stop({ graceful: true, timeout: 4000 });
  await pool.end();
  process.exit(0);
});
