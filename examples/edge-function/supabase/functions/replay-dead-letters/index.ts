// POST /functions/v1/replay-dead-letters: send failed jobs again, once. GET .../{replayId}: how far that is.

import { createHash } from "node:crypto";
import { authenticate, authorize, type Caller } from "../_shared/auth.ts";
import { type Db, pool, rows, transaction } from "../_shared/db.ts";
import { answer, ApiError, type Code, type Handler, type Info, readBody } from "../_shared/http.ts";
import { count } from "../_shared/metrics.ts";
import { clientAddress } from "../_shared/client-address.ts";
import * as validation from "../_shared/validation.ts";

export const PATH = "/functions/v1/replay-dead-letters";

const SHAPE = {
  orgId: validation.orgId,
  batchSize: validation.batchSize,
  idempotencyKey: validation.key,
  dryRun: validation.flag,
  force: validation.flag,
  jobIds: validation.jobIds,
  errorClass: validation.text,
};

type Wanted = {
  orgId: number;
  batchSize: number;
  key: string;
  dryRun: boolean;
  force: boolean;
  jobIds?: number[];
  errorClass?: string;
  digest: string;
};

function wantedBy(bytes: Buffer, caller: Caller): Wanted {
  const body = validation.read(bytes, SHAPE, ["orgId"]);
  const asked = {
    orgId: body.orgId,
    batchSize: body.batchSize ?? body.jobIds?.length ?? 25,
    dryRun: body.dryRun ?? false,
    force: body.force ?? false,
    jobIds: body.jobIds,
    errorClass: body.errorClass,
  };
  const key = body.idempotencyKey ?? (caller.mac ? `sig-${caller.mac.slice(0, 32)}` : crypto.randomUUID());
  return { ...asked, key, digest: createHash("sha256").update(JSON.stringify(asked)).digest("hex") };
}

const SELDOM: Code[] = ["FORBIDDEN", "TOO_MANY_REQUESTS"];
const NOTED: Code[] = [...SELDOM, "FEATURE_OFF", "IDEMPOTENCY_CONFLICT", "REQUEST_IN_PROGRESS", "PROCESSING_PAUSED"];

async function noteRefusal(error: unknown, caller: Caller, orgId: number, info: Info): Promise<void> {
  if (!(error instanceof ApiError) || !NOTED.includes(error.code)) return;
  const scope = error.code === "FORBIDDEN" ? String(caller.org ?? "all") : String(orgId);
  await rows(pool, "select ops.note_refusal($1, $2, $3, $4, $5)", scope, error.code, caller.actor, info.requestId, SELDOM.includes(error.code));
}

async function admit(orgId: number, address: string): Promise<void> {
  const [ticket] = await rows<{ wait: number }>(pool, "select ops.take_ticket($1) as wait", `replay:${orgId}:${address}`);
  if (ticket.wait > 0) {
    throw new ApiError("TOO_MANY_REQUESTS", "At most 3 replays in 5 minutes.", undefined, { "retry-after": String(ticket.wait) });
  }
}

async function requireFlags(db: Db, orgId: number): Promise<void> {
  for (const flag of ["dlq.replay.enabled", "outbox.enabled"]) {
    const [row] = await rows(db, "select app.flag_on($1, $2) as is_on", orgId, flag);
    if (!row.is_on) throw new ApiError("FEATURE_OFF", `The feature ${flag} is off for this organisation.`);
  }
}

async function requireNoBrake(db: Db, orgId: number): Promise<void> {
  const [row] = await rows(db, "select app.braked($1) as braked", orgId);
  if (row.braked) throw new ApiError("PROCESSING_PAUSED", "Processing is paused.");
}

const ELIGIBLE = `
  org_id = $1 and state = 'waiting' and tries < tries_allowed and ($2 or not_before <= now())
  and ($3::text is null or error_class = $3) and ($4::bigint[] is null or id = any($4))`;

async function eligible(db: Db, w: Wanted, lock: string): Promise<number[]> {
  const found = await rows<{ id: number }>(
    db,
    `with picked as materialized (
       select id, failed_at from ops.failed_jobs where ${ELIGIBLE} order by failed_at, id limit $5 ${lock}
     ) select id from picked order by failed_at, id`,
    w.orgId, w.force, w.errorClass ?? null, w.jobIds ?? null, w.batchSize,
  );
  return found.map((row) => row.id);
}

/** Of the jobs that were named: those that are not the organisation's, and those that cannot be replayed now. */
async function leftOver(db: Db, w: Wanted): Promise<{ missing: number[]; skipped: number[] }> {
  if (!w.jobIds) return { missing: [], skipped: [] };
  const own = await rows<{ id: number; fits: boolean }>(
    db,
    `select id, (${ELIGIBLE}) as fits from ops.failed_jobs where org_id = $1 and id = any($4)`,
    w.orgId, w.force, w.errorClass ?? null, w.jobIds,
  );
  const known = new Map(own.map((row) => [row.id, row.fits]));
  return {
    missing: w.jobIds.filter((id) => !known.has(id)),
    skipped: w.jobIds.filter((id) => known.get(id) === false),
  };
}

function outcome(w: Wanted, state: string, replayId: string | null, taken: number[], left: { missing: number[]; skipped: number[] }) {
  // a job that fits and was not taken is beyond the batch, or another replay's
  const beyond = (w.jobIds ?? []).filter((id) => ![...taken, ...left.missing, ...left.skipped].includes(id));
  return {
    state,
    replayId,
    idempotencyKey: w.key,
    orgId: w.orgId,
    dryRun: w.dryRun,
    deduplicated: false,
    itemCount: taken.length,
    taken,
    missing: left.missing,
    skipped: [...left.skipped, ...beyond],
  };
}

async function preview(w: Wanted, caller: Caller, info: Info): Promise<Response> {
  return transaction(async (db) => {
    await requireNoBrake(db, w.orgId);
    const left = await leftOver(db, w);
    const taken = await eligible(db, w, "");
    await rows(
      db,
      "insert into ops.audit_trail (event, who, org_scope, targets, detail, trace_id) values ('replay.previewed', $1, $2, $3, '{\"dry_run\": true}', $4)",
      caller.actor, String(w.orgId), taken.length, info.requestId,
    );
    return answer(200, outcome(w, "preview", null, taken, left));
  });
}

async function storedAnswer(db: Db, w: Wanted): Promise<Response | undefined> {
  const [mine] = await rows(db, "select pg_try_advisory_xact_lock(hashtextextended($1, 0)) as got", `${w.orgId} ${w.key}`);
  if (!mine.got) throw new ApiError("REQUEST_IN_PROGRESS", "A request with this key is running.");
  const [before] = await rows(db, "select request_digest, response from ops.replays where request_key = $1 and org_id = $2", w.key, w.orgId);
  if (!before) return undefined;
  if (before.request_digest !== w.digest) throw new ApiError("IDEMPOTENCY_CONFLICT", "This key was used for another request.");
  return answer(200, { ...before.response, deduplicated: true }, { "idempotency-replayed": "true" });
}

async function replay(w: Wanted, caller: Caller, info: Info): Promise<Response> {
  return transaction(async (db) => {
    const stored = await storedAnswer(db, w);
    if (stored) return stored;
    await requireNoBrake(db, w.orgId);
    const left = await leftOver(db, w);
    const taken = await eligible(db, w, "for update skip locked");
    const id = crypto.randomUUID();
    const result = outcome(w, taken.length > 0 ? "accepted" : "done", id, taken, left);
    await rows(
      db,
      `insert into ops.replays (id, request_key, org_id, requested_by, request_digest, item_count, trace_id, response)
       values ($1, $2, $3, $4, $5, $6, $7, $8)`,
      id, w.key, w.orgId, caller.actor, w.digest, taken.length, info.requestId, JSON.stringify(result),
    );
    await rows(
      db,
      `insert into ops.audit_trail (event, who, org_scope, targets, detail, trace_id)
       values ('replay.started', $1, $2, $3, jsonb_build_object('replay_run_id', $4::uuid, 'request_key', $5::text), $6)`,
      caller.actor, String(w.orgId), taken.length, id, w.key, info.requestId,
    );
    await rows(
      db,
      `with moved as (
         update ops.failed_jobs set state = 'in_progress', replay_id = $1, event_id = coalesce(event_id, gen_random_uuid())
         where id = any($2::bigint[]) returning *
       )
       insert into ops.outbox_messages (event_id, org_id, kind, stream, body, replay_id, job_id)
       select event_id, org_id, kind, stream, body, $1, id from moved order by failed_at, id`,
      id, taken,
    );
    if (taken.length === 0) await rows(db, "select ops.finish_replay($1, 'done')", id);
    return answer(200, result);
  });
}

async function start(req: Request, info: Info): Promise<Response> {
  const bytes = await readBody(req);
  const caller = await authenticate(req, bytes);
  const wanted = wantedBy(bytes, caller);
  try {
    await authorize(caller, wanted.orgId);
    await admit(wanted.orgId, clientAddress(req, info));
    await requireFlags(pool, wanted.orgId);
    return await (wanted.dryRun ? preview : replay)(wanted, caller, info);
  } catch (error) {
    await noteRefusal(error, caller, wanted.orgId, info);
    throw error;
  }
}

async function progress(req: Request, info: Info): Promise<Response> {
  const caller = await authenticate(req, Buffer.from(info.path), true);
  if (!caller.hasRole) throw new ApiError("FORBIDDEN", "These credentials may not read replays.");
  const id = info.path.slice(PATH.length + 1);
  const [row] = validation.UUID.test(id)
    ? await rows(pool, "select * from ops.replays where id = $1::uuid", id)
    : [];
  if (!row || !caller.mayActFor(row.org_id)) throw new ApiError("NOT_FOUND", "There is no such replay.");
  return answer(200, {
    replayId: row.id,
    orgId: row.org_id,
    idempotencyKey: row.request_key,
    state: { running: "accepted", done: "done", halted: "halted", errored: "errored" }[row.state as string],
    itemCount: row.item_count,
    okCount: row.ok_count,
    failedCount: row.bad_count,
    startedAt: row.started_at,
    finishedAt: row.finished_at,
  });
}

export const handler: Handler = async (req, info) => {
  if (info.path !== PATH) {
    if (req.method !== "GET") throw new ApiError("METHOD_NOT_ALLOWED", "Use GET.", undefined, { allow: "GET" });
    return progress(req, info);
  }
  try {
    const response = await start(req, info);
    count("replay_requests_total", { outcome: "accepted" });
    return response;
  } catch (error) {
    count("replay_requests_total", { outcome: error instanceof ApiError ? error.code : "failed" });
    throw error;
  }
};
