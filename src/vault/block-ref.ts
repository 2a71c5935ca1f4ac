/** Where a blob is and what it is: enough to read and check it. See docs/spec/vault.md, section 3. */
export interface BlobRef {
  /** 40 hexadecimal digits: the keyed hash of kind and content. */
  readonly id: string;
  /** 40 hexadecimal digits: session and counter. */
  readonly pack: string;
  readonly offset: number;
  readonly storedLength: number;
  readonly plainLength: number;
  readonly codec: number;
}

export const ID_BYTES = 20;
export const PACK_ID_BYTES = 20;
export const SESSION_BYTES = 16;

export const BLOCK_BYTES = 256 * 1024;
export const FAN_OUT = 256;
export const LARGEST_DISK = 2 ** 48;

export const blobKinds = { block: 1, patches: 2, node: 3 } as const;
export type BlobKind = (typeof blobKinds)[keyof typeof blobKinds];

export const codecs = { plain: 0, zstd: 1 } as const;

/** What a block, or a whole subtree, of a disk is made of. */
export type MapEntry =
  | { readonly kind: "hole" }
  | { readonly kind: "zero" }
  | { readonly kind: "blob"; readonly ref: BlobRef }
  | { readonly kind: "patched"; readonly ref: BlobRef; readonly patch: PatchRef };

/** A record within a bundle of patches. */
export interface PatchRef {
  readonly bundle: BlobRef;
  readonly offset: number;
  readonly length: number;
}

export const hole: MapEntry = { kind: "hole" };
export const zero: MapEntry = { kind: "zero" };

/** Equal in content; places do not matter. */
export function sameEntry(a: MapEntry, b: MapEntry): boolean {
  if (a.kind === "blob" && b.kind === "blob") return a.ref.id === b.ref.id;
  if (a.kind === "patched" && b.kind === "patched")
    return (
      a.ref.id === b.ref.id &&
      a.patch.bundle.id === b.patch.bundle.id &&
      a.patch.offset === b.patch.offset &&
      a.patch.length === b.patch.length
    );
  return a.kind === b.kind && a.kind !== "blob" && a.kind !== "patched";
}

export function packName(pack: string): string {
  return `packs/${pack.slice(0, 2)}/${pack}`;
}
