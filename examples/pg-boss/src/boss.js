// One pg-boss and one pool a process.

import pg from "pg";
import PgBoss from "pg-boss";

const connectionString = process.env.DATABASE_URL;
if (!connectionString) throw new Error("DATABASE_URL is not set");

export const pool = new pg.Pool({ connectionString, max: 8, application_name: "shop" });
pool.on("error", (error) => console.error("connection lost:", error.message));

export async function startBoss(options = {}) {
  const boss = new PgBoss({ connectionString, application_name: "shop boss", max: 6, ...options });
  boss.on("error", (error) => console.error("pg-boss:", error.message));
  await boss.start();
  return boss;
}
