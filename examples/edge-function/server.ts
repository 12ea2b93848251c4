// Stands in for Supabase's gateway and edge runtime: checks the apikey, finds the function, speaks HTTP for it.

import { randomUUID, timingSafeEqual } from "node:crypto";
import { createServer, type IncomingMessage, type ServerResponse } from "node:http";
import { pool } from "./supabase/functions/_shared/db.ts";
import { ApiError, failure, type Handler } from "./supabase/functions/_shared/http.ts";
import { count } from "./supabase/functions/_shared/metrics.ts";
import { settings } from "./supabase/functions/_shared/settings.ts";
import * as ingest from "./supabase/functions/ingest/index.ts";
import * as ops from "./supabase/functions/ops/index.ts";
import * as replays from "./supabase/functions/replay-dead-letters/index.ts";

const MAX_READ_BYTES = 2 * 1024 * 1024;

function functionOf(path: string): Handler | undefined {
  for (const { PATH, handler } of [replays, ingest]) {
    if (path === PATH || (path.startsWith(`${PATH}/`) && !path.slice(PATH.length + 1).includes("/"))) return handler;
  }
  return Object.hasOwn(ops.routes, path) ? ops.handler : undefined;
}

async function bodyOf(incoming: IncomingMessage): Promise<Buffer> {
  const chunks: Buffer[] = [];
  let size = 0;
  for await (const chunk of incoming) {
    size += chunk.length;
    if (size > MAX_READ_BYTES) throw new ApiError("PAYLOAD_TOO_LARGE", "At most 64 KiB are read.", undefined, { connection: "close" });
    chunks.push(chunk);
  }
  return Buffer.concat(chunks);
}

function headersOf(incoming: IncomingMessage): Headers {
  const headers = new Headers(); // a header that is sent twice is joined by a comma, and so is no valid credential
  for (let i = 0; i < incoming.rawHeaders.length; i += 2) headers.append(incoming.rawHeaders[i], incoming.rawHeaders[i + 1]);
  return headers;
}

function requireApiKey(headers: Headers): void {
  const given = Buffer.from(headers.get("apikey") ?? "");
  const wanted = Buffer.from(settings.anonKey);
  if (given.length !== wanted.length || !timingSafeEqual(given, wanted)) {
    throw new ApiError("UNAUTHENTICATED", "Credentials are missing or not valid.");
  }
}

async function respond(incoming: IncomingMessage, requestId: string, path: string): Promise<Response> {
  const body = await bodyOf(incoming);
  const serve = functionOf(path);
  if (!serve) throw new ApiError("NOT_FOUND", "There is nothing here.");
  const headers = headersOf(incoming);
  if (path.startsWith("/functions/")) requireApiKey(headers);
  if (incoming.method === "TRACE" || incoming.method === "CONNECT") {
    throw new ApiError("METHOD_NOT_ALLOWED", "Use another method.", undefined, { allow: "GET, POST" });
  }
  const hasBody = incoming.method !== "GET" && incoming.method !== "HEAD";
  const request = new Request("http://edge.internal/", { method: incoming.method, headers, body: hasBody ? new Uint8Array(body) : undefined });
  const remoteAddress = (incoming.socket.remoteAddress ?? "").replace(/^::ffff:/, "");
  return serve(request, { path, remoteAddress, requestId });
}

async function handle(incoming: IncomingMessage, outgoing: ServerResponse): Promise<void> {
  const requestId = randomUUID();
  const path = (incoming.url ?? "").split("?")[0];
  const response = await respond(incoming, requestId, path).catch((error) => {
    count("http_errors_total", { code: error instanceof ApiError ? error.code : "FAILED" });
    return failure(error);
  });
  const text = await response.text();
  const name = path.startsWith("/functions/v1/") ? path.split("/")[3] : "ops";
  count("http_requests_total", { function: ["replay-dead-letters", "ingest", "ops"].includes(name) ? name : "none", status: String(response.status) });
  outgoing.writeHead(response.status, {
    ...Object.fromEntries(response.headers),
    "content-length": Buffer.byteLength(text),
    "sb-request-id": requestId,
  });
  outgoing.end(incoming.method === "HEAD" ? undefined : text);
}

const server = createServer((incoming, outgoing) => {
  handle(incoming, outgoing).catch((error: Error) => {
    console.error("connection failed:", error.message);
    outgoing.destroy();
  });
});
server.keepAliveTimeout = 60_000;
server.listen(Number(process.env.PORT ?? 8000), "127.0.0.1", 511, () => console.log("listening"));

process.on("SIGTERM", () => {
  server.close(() => void pool.end());
  server.closeIdleConnections();
});
