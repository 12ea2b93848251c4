// For machines: /health, /ready, /version, /metrics and the description of the API.

import { pool, rows } from "../_shared/db.ts";
import { answer, ApiError, type Handler } from "../_shared/http.ts";
import { lines } from "../_shared/metrics.ts";
import { SCHEMA_VERSION, settings } from "../_shared/settings.ts";
import openapi from "./openapi.json" with { type: "json" };

async function ready(): Promise<Response> {
  const reasons: string[] = [];
  try {
    const [found] = await rows(
      pool,
      `select (select max(version) from supabase_migrations.schema_migrations) as version,
         exists (select from ops.relays where seen_at > clock_timestamp() - interval '10 s') as relay`,
    );
    if (found.version !== SCHEMA_VERSION) reasons.push("migrations are not at the expected version");
    if (!found.relay) reasons.push("no relay has been seen for 10 s");
  } catch {
    reasons.push("the database does not answer");
  }
  return answer(reasons.length ? 503 : 200, { ready: reasons.length === 0, reasons });
}

const GAUGES = `
  with waiting as (
    select org_id, count(*) as messages, min(created_at) as oldest
    from ops.outbox_messages where delivered_at is null and abandoned_at is null group by org_id
  ), live as (
    select * from waiting where app.flag_on(org_id, 'outbox.enabled') and not app.braked(org_id)
  )
  select
    (select coalesce(sum(messages), 0)::int from live) as pending,
    (select coalesce(sum(messages), 0)::int from waiting) - (select coalesce(sum(messages), 0)::int from live) as held,
    (select coalesce(extract(epoch from clock_timestamp() - min(oldest)), 0)::float8 from live) as lag_s,
    (select count(*)::int from ops.failed_jobs where state = 'waiting') as jobs_waiting,
    (select count(*)::int from ops.failed_jobs where state = 'in_progress') as jobs_in_progress,
    (select count(*)::int from ops.effects where state = 'ok') as effects_ok,
    (select count(*)::int from ops.effects where state = 'error') as effects_error`;

async function metrics(): Promise<Response> {
  const [g] = await rows(pool, GAUGES);
  const text = [
    ...lines(),
    "# TYPE outbox_pending gauge", `outbox_pending ${g.pending}`,
    "# TYPE outbox_held gauge", `outbox_held ${g.held}`,
    "# TYPE outbox_lag_seconds gauge", `outbox_lag_seconds ${g.lag_s}`,
    "# TYPE dlq_items gauge", `dlq_items{state="waiting"} ${g.jobs_waiting}`, `dlq_items{state="in_progress"} ${g.jobs_in_progress}`,
    "# TYPE agent_tasks_total counter", `agent_tasks_total{state="ok"} ${g.effects_ok}`, `agent_tasks_total{state="error"} ${g.effects_error}`,
    "# TYPE process_resident_memory_bytes gauge", `process_resident_memory_bytes ${process.memoryUsage().rss}`,
  ];
  return new Response(`${text.join("\n")}\n`, { headers: { "content-type": "text/plain; version=0.0.4" } });
}

const description = JSON.stringify(openapi);

export const routes: Record<string, () => Promise<Response>> = {
  "/health": async () => answer(200, { ok: true }),
  "/ready": ready,
  "/version": async () => answer(200, { release: settings.release, commit: settings.commit, schemaVersion: SCHEMA_VERSION }),
  "/metrics": metrics,
  "/openapi.json": async () => new Response(description, { headers: { "content-type": "application/json" } }),
};

export const handler: Handler = async (req, info) => {
  if (req.method !== "GET") throw new ApiError("METHOD_NOT_ALLOWED", "Use GET.", undefined, { allow: "GET" });
  return routes[info.path]();
};
