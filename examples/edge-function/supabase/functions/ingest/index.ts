// POST /functions/v1/ingest: take a domain event. GET .../{eventId}: whether it had its effect.

import { authenticate, authorize } from "../_shared/auth.ts";
import { pool, rows, transaction } from "../_shared/db.ts";
import { answer, ApiError, type Handler, type Info, readBody } from "../_shared/http.ts";
import * as validation from "../_shared/validation.ts";

export const PATH = "/functions/v1/ingest";

const SHAPE = {
  orgId: validation.orgId,
  kind: validation.text,
  stream: validation.text,
  body: validation.document,
  eventId: validation.uuid,
};

async function take(req: Request): Promise<Response> {
  const bytes = await readBody(req);
  const caller = await authenticate(req, bytes);
  const event = validation.read(bytes, SHAPE, ["orgId", "kind", "body"]);
  await authorize(caller, event.orgId);
  const eventId = event.eventId ?? crypto.randomUUID();
  const columns = [eventId, event.orgId, event.kind, event.stream ?? null, event.body];

  return transaction(async (db) => {
    // a braked organisation queues even where its outbox is off: nothing is delivered while the brake is on
    const [route] = await rows(db, "select app.flag_on($1, 'outbox.enabled') or app.braked($1) as queued", event.orgId);
    const stored = await rows(
      db,
      `insert into ops.domain_events (id, org_id, kind, stream, body, route) values ($1, $2, $3, $4, $5::jsonb, $6)
       on conflict (id) do nothing returning id`,
      ...columns, route.queued ? "queued" : "inline",
    );
    if (stored.length === 0) {
      const [known] = await rows(
        db,
        `select route, org_id = $2 and kind = $3 and stream is not distinct from $4 and body = $5::jsonb as same
         from ops.domain_events where id = $1`,
        ...columns,
      );
      if (!known?.same) throw new ApiError("EVENT_ID_TAKEN", "This eventId belongs to another event.");
      return answer(202, { eventId, route: known.route, deduplicated: true });
    }
    if (route.queued) {
      await rows(db, "insert into ops.outbox_messages (event_id, org_id, kind, stream, body) values ($1, $2, $3, $4, $5::jsonb)", ...columns);
    } else {
      await rows(db, "insert into ops.effects (org_id, worker, event_id, state) values ($1, 'inline', $2, 'ok')", event.orgId, eventId);
    }
    return answer(202, { eventId, route: route.queued ? "queued" : "inline", deduplicated: false });
  });
}

async function status(req: Request, info: Info): Promise<Response> {
  const caller = await authenticate(req, Buffer.from(info.path), true);
  if (!caller.hasRole) throw new ApiError("FORBIDDEN", "These credentials may not read events.");
  const id = info.path.slice(PATH.length + 1);
  const [row] = validation.UUID.test(id)
    ? await rows(
        pool,
        `select e.org_id, e.recorded_at, f.updated_at as effect_at, case
           when f.id is not null then 'delivered' when m.abandoned_at is not null then 'abandoned'
           when m.leased_until > now() then 'sending' else 'waiting' end as state
         from ops.domain_events e
         left join ops.effects f on f.event_id = e.id and f.state = 'ok'
         left join lateral (select * from ops.outbox_messages o where o.event_id = e.id order by seq desc limit 1) m on true
         where e.id = $1::uuid`,
        id,
      )
    : [];
  if (!row || !caller.mayActFor(row.org_id)) throw new ApiError("NOT_FOUND", "There is no such event.");
  return answer(200, { state: row.state, committedAt: row.recorded_at, effectAt: row.effect_at });
}

export const handler: Handler = async (req, info) => {
  if (info.path === PATH) return take(req);
  if (req.method !== "GET") throw new ApiError("METHOD_NOT_ALLOWED", "Use GET.", undefined, { allow: "GET" });
  return status(req, info);
};
