// Bodies: every member has a reader, every mistake is named, nothing unknown is let through.

import { ApiError, type Detail } from "./http.ts";
import { type Member, NotStrict, parseObject } from "./strict-json.ts";

export const MAX_BATCH = 50;
export const UUID = /^[0-9a-f]{8}-(?:[0-9a-f]{4}-){3}[0-9a-f]{12}$/i;

class Wrong extends Error {}
class TooLarge extends Error {}

type Reader<T> = (member: Member) => T;

export const orgId: Reader<number> = ({ value }) => {
  if (typeof value !== "number" || value < 1) throw new Wrong("must be the number of an organisation");
  return value;
};

export const batchSize: Reader<number> = ({ value }) => {
  if (typeof value !== "number" && typeof value !== "bigint") throw new Wrong(`must be an integer from 1 to ${MAX_BATCH}`);
  if (value < 1) throw new Wrong(`must be an integer from 1 to ${MAX_BATCH}`);
  if (value > MAX_BATCH) throw new TooLarge();
  return Number(value);
};

export const flag: Reader<boolean> = ({ value }) => {
  if (typeof value !== "boolean") throw new Wrong("must be true or false");
  return value;
};

export const jobIds: Reader<number[]> = ({ value }) => {
  if (!Array.isArray(value) || value.length === 0) throw new Wrong("must be a list of job ids that is not empty");
  if (!value.every((id) => typeof id === "number" && id >= 1)) throw new Wrong("must hold ids of jobs only");
  if (value.length > MAX_BATCH) throw new TooLarge();
  return [...new Set(value as number[])].sort((a, b) => a - b);
};

export const text: Reader<string> = ({ value }) => {
  if (typeof value !== "string" || value.length < 1 || value.length > 200) throw new Wrong("must be text of 1 to 200 characters");
  return value;
};

export const key: Reader<string> = ({ value }) => {
  if (typeof value !== "string" || !/^[ -~]{1,200}$/.test(value)) throw new Wrong("must be 1 to 200 printable ASCII characters");
  return value;
};

export const uuid: Reader<string> = ({ value }) => {
  if (typeof value !== "string" || !UUID.test(value)) throw new Wrong("must be a UUID");
  return value.toLowerCase();
};

/** An object, as the text that was sent. */
export const document: Reader<string> = ({ value, text: sent }) => {
  if (!(value instanceof Map)) throw new Wrong("must be an object");
  return sent;
};

type Shape = Record<string, Reader<any>>;
type Read<S extends Shape, R extends keyof S> = { [K in keyof S]: K extends R ? ReturnType<S[K]> : ReturnType<S[K]> | undefined };

/** The members of a body by their readers; throws VALIDATION_FAILED or BATCH_TOO_LARGE. */
export function read<S extends Shape, R extends keyof S>(bytes: Uint8Array, shape: S, required: R[]): Read<S, R> {
  const details: Detail[] = [];
  let tooLarge = false;
  const found: Record<string, unknown> = {};
  let members: Map<string, Member>;
  try {
    members = parseObject(bytes);
  } catch (error) {
    if (!(error instanceof NotStrict)) throw error;
    throw new ApiError("VALIDATION_FAILED", error.message, [{ field: "", message: error.message }]);
  }
  for (const [name, member] of members) {
    try {
      if (!Object.hasOwn(shape, name)) throw new Wrong("is not known");
      found[name] = shape[name](member);
    } catch (error) {
      if (error instanceof TooLarge) tooLarge = true;
      else if (error instanceof Wrong) details.push({ field: name.slice(0, 100), message: error.message });
      else throw error;
    }
  }
  for (const name of required) if (!members.has(name as string)) details.push({ field: name as string, message: "is required" });
  if (details.length > 0) throw new ApiError("VALIDATION_FAILED", "The body is not valid.", details);
  if (tooLarge) throw new ApiError("BATCH_TOO_LARGE", `At most ${MAX_BATCH} jobs are replayed at once.`);
  return found as Read<S, R>;
}
