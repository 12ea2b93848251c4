// PostgreSQL: one pool a process, short timeouts, transactions.

import pg from "pg";
import { settings } from "./settings.ts";

const INT8 = 20;
pg.types.setTypeParser(INT8, (text) => Number(text)); // our bigints stay below 2^53

export const pool = new pg.Pool({
  connectionString: settings.databaseUrl,
  max: 16,
  connectionTimeoutMillis: 3000,
  application_name: "edge-function",
  options: "-c statement_timeout=8000 -c lock_timeout=2500 -c timezone=UTC -c idle_in_transaction_session_timeout=15000",
});
pool.on("error", (error) => console.error("idle connection lost:", error.message));

export type Db = pg.Pool | pg.PoolClient;

export async function rows<T = Record<string, any>>(db: Db, text: string, ...values: unknown[]): Promise<T[]> {
  return (await db.query(text, values)).rows as T[];
}

export async function transaction<T>(work: (db: pg.PoolClient) => Promise<T>): Promise<T> {
  const client = await pool.connect();
  let broken: Error | undefined;
  try {
    await client.query("begin");
    const result = await work(client);
    await client.query("commit");
    return result;
  } catch (error) {
    await client.query("rollback").catch((lost: Error) => { broken = lost; });
    throw error;
  } finally {
    client.release(broken);
  }
}
