// The relay: takes messages from the outbox, delivers them, settles them. Any number of relays may run.

import { randomUUID } from "node:crypto";
import { setTimeout as sleep } from "node:timers/promises";
import pg from "pg";
import { pool, rows, transaction } from "../supabase/functions/_shared/db.ts";
import { settings } from "../supabase/functions/_shared/settings.ts";

const BATCH = 100;
const PLACES_OF_A_REPLAY = 10;
const LEASE_S = 30;
const MAX_TRIES = 5;
const POLL_MS = 250;
const DELIVERY_TIMEOUT_MS = 5000;

type Message = {
  seq: number;
  event_id: string;
  org_id: number;
  kind: string;
  stream: string | null;
  body: unknown;
  tries: number;
  replay_id: string | null;
  webhook_url: string | null;
};
type Problem = { name: string; detail: string };

/** The first open message of each stream, of organisations that are switched on and not braked; of a replay at most ten. */
const LEASE = `
  with orgs as materialized (
    select org_id from ops.outbox_messages where delivered_at is null and abandoned_at is null group by org_id
  ), live as materialized (
    select org_id from orgs where app.flag_on(org_id, 'outbox.enabled') and not app.braked(org_id)
  ), heads as materialized (
    select m.seq, m.replay_id, row_number() over (partition by m.replay_id order by m.seq) as place
    from ops.outbox_messages m
    where m.delivered_at is null and m.abandoned_at is null and m.org_id in (select org_id from live)
      and m.not_before <= now() and (m.leased_until is null or m.leased_until <= now())
      and (m.stream is null or not exists (
        select from ops.outbox_messages b
        where b.org_id = m.org_id and b.stream = m.stream and b.seq < m.seq and b.delivered_at is null and b.abandoned_at is null))
  ), chosen as materialized (
    select h.seq from heads h
    where h.replay_id is null or h.place <= $1 - (
      select count(*) from ops.outbox_messages f
      where f.replay_id = h.replay_id and f.delivered_at is null and f.abandoned_at is null and f.leased_until > now())
    order by h.seq limit $2
  ), locked as materialized (
    select m.seq from ops.outbox_messages m join chosen using (seq)
    where m.delivered_at is null and m.abandoned_at is null and (m.leased_until is null or m.leased_until <= now())
    for update of m skip locked
  )
  update ops.outbox_messages m
  set leased_until = clock_timestamp() + make_interval(secs => $3), lease_id = $4
  from locked l where m.seq = l.seq
  returning m.seq, m.event_id, m.org_id, m.kind, m.stream, m.body, m.tries, m.replay_id,
    (select o.webhook_url from app.orgs o where o.id = m.org_id) as webhook_url`;

async function lease(leaseId: string): Promise<Message[]> {
  return transaction(async (db) => {
    await rows(db, "select pg_advisory_xact_lock(hashtextextended('ops relay', 0))"); // the places of a replay are counted by one at a time
    return rows<Message>(db, LEASE, PLACES_OF_A_REPLAY, BATCH, LEASE_S, leaseId);
  });
}

/** What a message is for: the organisation's webhook is called, if it has one. Partners refuse an event id that they know. */
async function deliver(message: Message): Promise<Problem | undefined> {
  if (!message.webhook_url) return undefined;
  try {
    const response = await fetch(message.webhook_url, {
      method: "POST",
      headers: { "content-type": "application/json", "x-event-id": message.event_id },
      body: JSON.stringify({ kind: message.kind, body: message.body }),
      signal: AbortSignal.timeout(DELIVERY_TIMEOUT_MS),
      redirect: "error",
    });
    return response.ok ? undefined : { name: `http_${response.status}`, detail: "The webhook refused the message." };
  } catch (error) {
    return { name: "unreachable", detail: error instanceof Error ? error.message.slice(0, 200) : "no answer" };
  }
}

/** Effect and acknowledgement in one statement. */
const DELIVERED = `
  with held as materialized (
    select m.seq, m.event_id, m.org_id from ops.outbox_messages m
    where m.seq = any($1::bigint[]) and m.lease_id = $2 and m.delivered_at is null and m.abandoned_at is null
    order by m.seq for update
  ), effect as (
    insert into ops.effects as e (org_id, event_id, state, created_at, updated_at)
    select distinct on (h.event_id) h.org_id, h.event_id, 'ok', clock_timestamp(), clock_timestamp() from held h
    on conflict (event_id) do update set state = 'ok', updated_at = clock_timestamp() where e.state <> 'ok'
  )
  update ops.outbox_messages m set delivered_at = clock_timestamp(), leased_until = null, tries = m.tries + 1
  from held h where m.seq = h.seq`;

/** The next try after a growing, scattered pause; after the last one the message becomes a failed job. */
const FAILED = `
  with held as materialized (
    select m.*, m.tries + 1 >= $5 as was_last from ops.outbox_messages m
    where m.seq = $1 and m.lease_id = $2 and m.delivered_at is null and m.abandoned_at is null for update
  ), job as (
    insert into ops.failed_jobs (org_id, event_id, kind, stream, body, error_class, error_detail)
    select org_id, event_id, kind, stream, body, $3, $4 from held where was_last
  )
  update ops.outbox_messages m set
    tries = m.tries + 1, leased_until = null, lease_id = null, last_error = $3,
    abandoned_at = case when h.was_last then clock_timestamp() end,
    not_before = case when h.was_last then m.not_before
      else clock_timestamp() + make_interval(secs => least(300, 2 ^ m.tries) * (0.5 + random() / 2)) end
  from held h where m.seq = h.seq`;

async function round(): Promise<number> {
  const leaseId = randomUUID();
  const messages = await lease(leaseId);
  const results = await Promise.all(messages.map(async (message) => ({ message, problem: await deliver(message) })));
  const delivered = results.filter((r) => !r.problem && !r.message.replay_id).map((r) => r.message.seq);
  if (delivered.length > 0) await rows(pool, DELIVERED, delivered, leaseId);
  for (const { message, problem } of results) {
    if (message.replay_id) {
      await rows(pool, "select ops.settle_replayed($1, $2, $3, $4)", message.seq, leaseId, problem?.name ?? null, problem?.detail ?? null);
    } else if (problem) {
      await rows(pool, FAILED, message.seq, leaseId, problem.name, problem.detail, MAX_TRIES);
    }
  }
  return messages.length;
}

let stopping = false;
let wake = new AbortController();
process.on("SIGTERM", () => {
  stopping = true;
  wake.abort();
});

async function listen(): Promise<void> {
  while (!stopping) {
    const client = new pg.Client({ connectionString: settings.databaseUrl, application_name: "edge-relay listener" });
    try {
      await client.connect();
      client.on("notification", () => wake.abort());
      await client.query("listen outbox");
      await new Promise<void>((resolve) => {
        client.once("error", () => resolve());
        client.once("end", () => resolve());
      });
    } catch (error) {
      console.error("listener:", error instanceof Error ? error.message : error);
    }
    await client.end().catch(() => {});
    await sleep(500);
  }
}

async function beat(name: string): Promise<void> {
  while (!stopping) {
    await rows(pool, "insert into ops.relays (name) values ($1) on conflict (name) do update set seen_at = clock_timestamp()", name).catch(
      (error: Error) => console.error("heartbeat:", error.message),
    );
    await sleep(1000);
  }
}

void listen();
void beat(`relay-${process.pid}`);
while (!stopping) {
  let moved = 0;
  try {
    moved = await round();
  } catch (error) {
    console.error("round:", error instanceof Error ? error.message : error);
    await sleep(500);
  }
  if (moved === 0 && !stopping) await sleep(POLL_MS, undefined, { signal: wake.signal }).catch(() => {});
  if (wake.signal.aborted) wake = new AbortController();
}
process.exit(0);
