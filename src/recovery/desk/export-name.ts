/** Names of the exports that the vault's desk serves. Pure. */

export type ExportName =
  /** Takes in a volume's writes, under a fencing epoch, into the log of this history and no other (`group-record.ts`). */
  | {
      readonly kind: "capture";
      readonly group: string;
      readonly volume: string;
      readonly epoch: number;
      readonly history: string;
    }
  /** Takes in an image of a volume, as the desk was told of it. */
  | { readonly kind: "image"; readonly group: string; readonly volume: string; readonly epoch: number }
  /** A volume as it was after a record of its group's log. */
  | { readonly kind: "moment"; readonly group: string; readonly volume: string; readonly sequence: number }
  /** A point of the repository, by its id. */
  | { readonly kind: "point"; readonly point: string };

export function encodeExportName(name: ExportName): string {
  switch (name.kind) {
    case "capture": {
      const { group, volume, epoch, history } = name;
      return ["capture", group, volume, epoch, ...(history === "" ? [] : [history])].join("/");
    }
    case "image":
      return `image/${name.group}/${name.volume}/${name.epoch}`;
    case "moment":
      return `moment/${name.group}/${name.volume}/${name.sequence}`;
    case "point":
      return `point/${name.point}`;
  }
}

/** Of a group: also the name of its folder. */
export const groupName = /^[A-Za-z0-9_][A-Za-z0-9._-]{0,99}$/u;
/** Of a volume: its cloud's id of it, or what an agent's configuration calls it. */
export const volumeName = /^[^/\p{C}]{1,64}$/u;

const ofGroup =
  /^(?<kind>capture|image|moment)\/(?<group>[^/]+)\/(?<volume>[^/]+)\/(?<number>\d{1,15})(?:\/(?<history>[0-9a-f]{1,32}))?$/u;

/** Undefined: it is none of ours. */
export function decodeExportName(text: string): ExportName | undefined {
  if (text.startsWith("point/")) return { kind: "point", point: text.slice("point/".length) };
  const { kind, group, volume, number, history } = ofGroup.exec(text)?.groups ?? {};
  if (group === undefined || volume === undefined) return undefined;
  if (!groupName.test(group) || !volumeName.test(volume)) return undefined;
  if (kind === "capture") return { kind, group, volume, epoch: Number(number), history: history ?? "" };
  if (history !== undefined) return undefined;
  return kind === "image"
    ? { kind, group, volume, epoch: Number(number) }
    : { kind: "moment", group, volume, sequence: Number(number) };
}
