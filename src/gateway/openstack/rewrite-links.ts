/**
 * The cloud's own addresses in its answers, replaced by the gateway's: in `href` and `next` members (links of version documents
 * and pages, which clients follow) and in `Location`. All other bytes stay as the cloud wrote them.
 *
 * Clients would otherwise send the gateway's token to the cloud, or changes past the journal.
 */
import type { EditAnswer, EditedAnswer, FlatHeaders } from "#gateway/dialect.ts";
import { type ServiceRoots, servicePrefixes } from "./service-paths.ts";

const members = '"(?:href|next|prev|previous|first)"[ \\t\\r\\n]{0,4}:[ \\t\\r\\n]{0,4}"';
/** Longest text of a member's name with what stands between it and its value. */
const membersLength = '"previous"'.length + 4 + 1 + 4 + 1;

interface Rewriter {
  readonly link: RegExp;
  readonly address: RegExp;
  /** A link that is not whole yet is shorter than this. */
  readonly reach: number;
  /** From an address, without its scheme, to the gateway's. */
  readonly places: ReadonlyMap<string, string>;
}

/** `base`: the gateway's address as the caller knows it. */
export function linkRewriter(roots: ServiceRoots, base: string): EditAnswer {
  const rewriter = rewriterFor(roots, base);
  return (headers) => {
    let type = "";
    const edited: string[] = [];
    for (let at = 0; at + 1 < headers.length; at += 2) {
      const name = headers[at] ?? "";
      const value = headers[at + 1] ?? "";
      const lower = name.toLowerCase();
      if (lower === "content-type") type = value;
      if (lower === "location" || lower === "content-location") {
        edited.push(
          name,
          value.replace(rewriter.address, (...found) => placeOf(rewriter, found)),
        );
      } else edited.push(name, value);
    }
    const isJson = /^application\/(?:[a-z0-9.+-]*\+)?json\b/i.test(type);
    return isJson ? new EditedJson(withoutLength(edited), rewriter) : passed(edited);
  };
}

function rewriterFor(roots: ServiceRoots, base: string): Rewriter {
  const places = new Map<string, string>();
  for (const [service, root] of roots) {
    const address = `${root.host}${root.pathname.replace(/\/$/, "")}`;
    // Two services at one address: links of the first one's catalogue entry, as every client would take them.
    if (!places.has(address)) places.set(address, `${base}${servicePrefixes[service]}`);
  }
  // The longest first: an address may begin with another one.
  const addresses = [...places.keys()].sort((a, b) => b.length - a.length);
  // No service at all: a pattern that nothing matches.
  const any = addresses.length === 0 ? "(?!)" : addresses.map((text) => RegExp.escape(text)).join("|");
  // The scheme may be another one: services behind a TLS proxy name themselves by http.
  const source = `https?://(${any})(?=[/?"]|$)`;
  return {
    places,
    link: new RegExp(`(${members})https?://(${any})(?=[/?"])`, "g"),
    address: new RegExp(`^${source}`),
    reach: membersLength + "https://".length + (addresses[0]?.length ?? 0) + 1,
  };
}

function placeOf({ places }: Rewriter, found: readonly unknown[]): string {
  return places.get(String(found[1])) ?? String(found[0]);
}

function withoutLength(headers: FlatHeaders): FlatHeaders {
  return headers.filter((_, at) => headers[at - (at % 2)]?.toLowerCase() !== "content-length");
}

function passed(headers: FlatHeaders): EditedAnswer {
  return { headers, push: (chunk) => chunk, end: () => Buffer.alloc(0) };
}

class EditedJson implements EditedAnswer {
  readonly headers: FlatHeaders;
  readonly #rewriter: Rewriter;
  /** As latin1, so that every byte stays what it was. */
  #held = "";

  constructor(headers: FlatHeaders, rewriter: Rewriter) {
    this.headers = headers;
    this.#rewriter = rewriter;
  }

  push(chunk: Buffer): Buffer {
    const text = this.#held + chunk.toString("latin1");
    return this.#edit(text, text.length - this.#rewriter.reach);
  }

  end(): Buffer {
    return this.#edit(this.#held, this.#held.length);
  }

  /** Up to `ready`: a link that begins later may go on in the next piece, and be another address. */
  #edit(text: string, ready: number): Buffer {
    const { link, places } = this.#rewriter;
    const parts: string[] = [];
    let done = 0;
    for (const match of text.matchAll(link)) {
      const [whole, member = "", address = ""] = match;
      if (match.index > ready) break;
      parts.push(text.slice(done, match.index), member, places.get(address) ?? "");
      done = match.index + whole.length;
    }
    const end = Math.max(done, ready);
    parts.push(text.slice(done, end));
    this.#held = text.slice(end);
    return Buffer.from(parts.join(""), "latin1");
  }
}
