// Settings, read once from the environment. A missing or weak secret ends the program at its start.

function secret(name: string, least: number): string {
  const value = process.env[name] ?? "";
  if (Buffer.byteLength(value) < least) throw new Error(`${name} must have at least ${least} bytes`);
  return value;
}

export const settings = {
  databaseUrl: secret("DATABASE_URL", 1),
  jwtSecret: new TextEncoder().encode(secret("SUPABASE_JWT_SECRET", 32)),
  jwtAudience: process.env.JWT_AUDIENCE || undefined,
  jwtIssuer: process.env.JWT_ISSUER || undefined,
  anonKey: secret("SUPABASE_ANON_KEY", 16),
  /** The first one signs at our partners; every one verifies, so that secrets can be rotated. */
  signingSecrets: secret("SIGNING_SECRETS", 16).split(",").map((s) => {
    if (s.length < 16) throw new Error("each of SIGNING_SECRETS must have at least 16 characters");
    return s;
  }),
  trustedProxies: (process.env.TRUSTED_PROXIES ?? "").split(",").filter(Boolean),
  release: process.env.RELEASE ?? "dev",
  commit: process.env.COMMIT ?? "unknown",
};

/** The last migration that this code was written for. */
export const SCHEMA_VERSION = "20250312080000";
