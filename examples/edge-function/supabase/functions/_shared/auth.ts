// Who is calling: a partner's signature over the raw bytes, or a token of our own issuer.

import { createHmac, timingSafeEqual } from "node:crypto";
import { type JWTPayload, jwtVerify } from "jose";
import { pool, rows } from "./db.ts";
import { ApiError } from "./http.ts";
import { settings } from "./settings.ts";

export type Caller = {
  actor: string;
  mayActFor: (org: number) => boolean;
  hasRole: boolean;
  /** The caller's own organisation, where its token names one. */
  org?: number;
  /** The MAC of a signature that binds a time: a request that is sent again is known by it. */
  mac?: string;
};

const TOLERANCE_S = 300;
const LEEWAY_S = 30;

function unauthenticated(): ApiError {
  return new ApiError("UNAUTHENTICATED", "Credentials are missing or not valid.");
}

function verifies(mac: string, ...parts: (string | Uint8Array)[]): boolean {
  let known = false;
  for (const secret of settings.signingSecrets) {
    const hmac = createHmac("sha256", secret);
    for (const part of parts) hmac.update(part);
    if (timingSafeEqual(Buffer.from(hmac.digest("hex")), Buffer.from(mac))) known = true;
  }
  return known;
}

async function timedOnly(): Promise<boolean> {
  const [row] = await rows(pool, "select is_on and percent > 0 as wanted from app.flags where name = 'security.signing_v2_required' and org_id is null");
  return row?.wanted === true;
}

/** `sha256=<hex>` over the bytes, or `t=<unix seconds>,v1=<hex>` over `<t>.<bytes>`. */
async function signature(header: string, bytes: Uint8Array, isRead: boolean): Promise<Caller> {
  const plain = /^sha256=([0-9a-f]{64})$/.exec(header);
  if (plain && !isRead && verifies(plain[1], bytes) && !(await timedOnly())) {
    return { actor: "signature", mayActFor: () => true, hasRole: true };
  }
  const timed = /^t=([1-9]\d{0,11}),v1=([0-9a-f]{64})$/.exec(header);
  if (timed && Math.abs(Date.now() / 1000 - Number(timed[1])) <= TOLERANCE_S && verifies(timed[2], `${timed[1]}.`, bytes)) {
    return { actor: "signature", mayActFor: () => true, hasRole: true, mac: timed[2] };
  }
  throw unauthenticated();
}

async function token(header: string): Promise<Caller> {
  const bearer = /^Bearer ([\w-]+\.[\w-]+\.[\w-]+)$/.exec(header);
  if (!bearer) throw unauthenticated();
  let claims: JWTPayload;
  try {
    ({ payload: claims } = await jwtVerify(bearer[1], settings.jwtSecret, {
      algorithms: ["HS256"],
      requiredClaims: ["exp", "sub", "role"],
      clockTolerance: LEEWAY_S,
      audience: settings.jwtAudience,
      issuer: settings.jwtIssuer,
    }));
  } catch {
    throw unauthenticated();
  }
  const issuedAhead = claims.iat !== undefined && !(claims.iat <= Date.now() / 1000 + LEEWAY_S);
  if (typeof claims.role !== "string" || typeof claims.sub !== "string" || !claims.sub || issuedAhead) throw unauthenticated();
  const isSuper = claims.role === "super_admin";
  const isAdmin = claims.role === "company_admin";
  const org = (claims.app_metadata as { org_id?: unknown } | undefined)?.org_id;
  const own = isAdmin && (typeof org === "number" || typeof org === "string") ? String(org) : undefined;
  return {
    actor: claims.sub.slice(0, 200),
    hasRole: isSuper || isAdmin,
    mayActFor: (wanted) => isSuper || own === String(wanted),
    org: own !== undefined && /^[1-9]\d{0,15}$/.test(own) ? Number(own) : undefined,
  };
}

/** Throws UNAUTHENTICATED. Where a signature and a token are sent, both must be good, and the token's rights count. */
export async function authenticate(req: Request, bytes: Uint8Array, isRead = false): Promise<Caller> {
  const signed = req.headers.get("x-signature");
  const bearer = req.headers.get("authorization");
  if (signed === null && bearer === null) throw unauthenticated();
  const bySignature = signed === null ? undefined : await signature(signed, bytes, isRead);
  const byToken = bearer === null ? undefined : await token(bearer);
  return byToken ? { ...byToken, mac: bySignature?.mac } : bySignature!;
}

/** Throws FORBIDDEN; an organisation that does not exist is refused like a foreign one. */
export async function authorize(caller: Caller, org: number): Promise<void> {
  const [known] = await rows(pool, "select 1 from app.orgs where id = $1", org);
  if (!caller.hasRole || !known || !caller.mayActFor(org)) {
    throw new ApiError("FORBIDDEN", "These credentials may not act for this organisation.");
  }
}
