// Answers: JSON, and one envelope for every error.

export type Info = { path: string; remoteAddress: string; requestId: string };
export type Handler = (req: Request, info: Info) => Promise<Response>;
export type Detail = { field: string; message: string };

const STATUS = {
  UNAUTHENTICATED: 401,
  VALIDATION_FAILED: 400,
  BATCH_TOO_LARGE: 400,
  FORBIDDEN: 403,
  FEATURE_OFF: 403,
  NOT_FOUND: 404,
  METHOD_NOT_ALLOWED: 405,
  REQUEST_IN_PROGRESS: 409,
  EVENT_ID_TAKEN: 409,
  PAYLOAD_TOO_LARGE: 413,
  UNSUPPORTED_MEDIA_TYPE: 415,
  IDEMPOTENCY_CONFLICT: 422,
  PROCESSING_PAUSED: 423,
  TOO_MANY_REQUESTS: 429,
  SERVICE_UNAVAILABLE: 503,
} as const;
export type Code = keyof typeof STATUS;

export class ApiError extends Error {
  constructor(
    readonly code: Code,
    message: string,
    readonly details?: Detail[],
    readonly headers: Record<string, string> = {},
  ) {
    super(message);
  }
}

export function answer(status: number, body: unknown, headers: Record<string, string> = {}): Response {
  return new Response(JSON.stringify(body), { status, headers: { "content-type": "application/json", ...headers } });
}

export function failure(error: unknown): Response {
  if (error instanceof ApiError) {
    const { code, message, details, headers } = error;
    return answer(STATUS[code], { error: { code, message, ...(details && { details }) } }, headers);
  }
  console.error("request failed:", error instanceof Error ? error.message : error);
  return answer(503, { error: { code: "SERVICE_UNAVAILABLE", message: "Try again in a moment." } });
}

const MAX_BODY_BYTES = 64 * 1024;

/** The raw bytes of a JSON POST; throws where method, media type or size are wrong. */
export async function readBody(req: Request): Promise<Buffer> {
  if (req.method !== "POST") throw new ApiError("METHOD_NOT_ALLOWED", "Use POST.", undefined, { allow: "POST" });
  const type = (req.headers.get("content-type") ?? "").toLowerCase().replaceAll(" ", "");
  const encoded = req.headers.get("content-encoding") ?? "identity";
  if (!["application/json", "application/json;charset=utf-8"].includes(type) || encoded !== "identity") {
    throw new ApiError("UNSUPPORTED_MEDIA_TYPE", "Send application/json in UTF-8, not compressed.");
  }
  const body = Buffer.from(await req.arrayBuffer());
  if (body.length > MAX_BODY_BYTES) throw new ApiError("PAYLOAD_TOO_LARGE", "At most 64 KiB are read.");
  return body;
}
