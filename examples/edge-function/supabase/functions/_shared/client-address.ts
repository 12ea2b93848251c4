// The address of the caller: the socket's peer; behind a proxy of ours, the last address that is no proxy of ours.

import { isIP } from "node:net";
import type { Info } from "./http.ts";
import { settings } from "./settings.ts";

export function clientAddress(req: Request, info: Info): string {
  const trusted = (address: string) => settings.trustedProxies.includes(address);
  if (!trusted(info.remoteAddress)) return info.remoteAddress;
  const hops = (req.headers.get("x-forwarded-for") ?? "").split(",").map((hop) => hop.trim());
  const client = hops.reverse().find((hop) => !trusted(hop));
  return client !== undefined && isIP(client) ? client : info.remoteAddress;
}
