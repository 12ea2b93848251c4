// JSON as strictly as a signed request deserves: no duplicate keys, no NUL, no lone surrogates, bounded depth, and
// integers told apart from other numbers (JSON.parse makes 10, 10.0 and 1e1 the same).

export class NotStrict extends Error {}

/** A number that is not written as a plain integer. */
export class Fraction {
  constructor(readonly text: string) {}
}

/** A member of the body with its own text: what goes into a jsonb column goes there as it was sent. */
export type Member = { value: unknown; text: string };

const MAX_DEPTH = 64;
const TOKEN = /[ \t\n\r]*("(?:[^"\\\u0000-\u001f]|\\(?:["\\/bfnrt]|u[0-9a-fA-F]{4}))*"|-?(?:0|[1-9]\d*)(?:\.\d+)?(?:[eE][+-]?\d+)?|true|false|null|[{}[\],:])/y;
const LONE_SURROGATE = /[\ud800-\udbff](?![\udc00-\udfff])|(?<![\ud800-\udbff])[\udc00-\udfff]/;

class Reader {
  private at = 0;
  private start = 0;

  constructor(private readonly source: string) {}

  private peek(): string {
    const before = this.at;
    const token = this.next();
    this.at = before;
    return token;
  }

  private next(): string {
    TOKEN.lastIndex = this.at;
    const match = TOKEN.exec(this.source);
    if (!match) throw new NotStrict("The body is not valid JSON.");
    this.at = TOKEN.lastIndex;
    this.start = this.at - match[1].length;
    return match[1];
  }

  document(): Map<string, Member> {
    if (this.peek() !== "{") throw new NotStrict("The body must be a JSON object.");
    const found = this.object(1);
    if (!/^[ \t\n\r]*$/.test(this.source.slice(this.at))) throw new NotStrict("There is text after the JSON object.");
    return found;
  }

  private value(depth: number): unknown {
    if (depth > MAX_DEPTH) throw new NotStrict(`The body is nested deeper than ${MAX_DEPTH} levels.`);
    const token = this.peek();
    if (token === "{") return this.object(depth);
    if (token === "[") return this.list(depth);
    this.next();
    if (token[0] === '"') return this.string(token);
    if (token === "true" || token === "false") return token === "true";
    if (token === "null") return null;
    if (!/^-?\d/.test(token)) throw new NotStrict("The body is not valid JSON.");
    if (!/^(?:0|-?[1-9]\d*)$/.test(token)) return new Fraction(token);
    return Number.isSafeInteger(Number(token)) ? Number(token) : BigInt(token);
  }

  private string(token: string): string {
    const text: string = JSON.parse(token);
    if (text.includes("\u0000") || LONE_SURROGATE.test(text)) throw new NotStrict("A string holds a character that cannot be stored.");
    return text;
  }

  private object(depth: number): Map<string, Member> {
    const found = new Map<string, Member>();
    this.next();
    if (this.peek() === "}") {
      this.next();
      return found;
    }
    for (;;) {
      const key = this.next();
      if (key[0] !== '"') throw new NotStrict("The body is not valid JSON.");
      const name = this.string(key);
      if (found.has(name)) throw new NotStrict("A member is there twice.");
      if (this.next() !== ":") throw new NotStrict("The body is not valid JSON.");
      this.peek();
      const from = this.start;
      const value = this.value(depth + 1);
      found.set(name, { value, text: this.source.slice(from, this.at) });
      const end = this.next();
      if (end === "}") return found;
      if (end !== ",") throw new NotStrict("The body is not valid JSON.");
    }
  }

  private list(depth: number): unknown[] {
    const found: unknown[] = [];
    this.next();
    if (this.peek() === "]") {
      this.next();
      return found;
    }
    for (;;) {
      found.push(this.value(depth + 1));
      const end = this.next();
      if (end === "]") return found;
      if (end !== ",") throw new NotStrict("The body is not valid JSON.");
    }
  }
}

/** The members of a JSON object in UTF-8; throws NotStrict. */
export function parseObject(bytes: Uint8Array): Map<string, Member> {
  let source: string;
  try {
    source = new TextDecoder("utf-8", { fatal: true, ignoreBOM: true }).decode(bytes);
  } catch {
    throw new NotStrict("The body is not UTF-8.");
  }
  return new Reader(source).document();
}
