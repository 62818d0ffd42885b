/** What of a picture becomes a file, and where the server has it. */

import * as api from "./api";
import type { Picture } from "./contract";

export type Format = api.FileChoice["format"] | "svg";

export interface Choice {
  format: Format;
  /** The longer side in pixels; null for the picture's own. */
  side: number | null;
  /** A colour, or nothing for what is transparent. */
  background: string;
  clean: boolean;
}

/** A longer side that is worth keeping, in pixels. */
const WORTH = 1024;
const SIDES = [512, 1024, 2048];
/** Times that pixels are enlarged, at most. */
const LARGEST = 16;

const longer = ({ width, height }: Picture) => Math.max(width, height);
const times = (picture: Picture, side: number | null) =>
  side === null ? 1 : Math.round(side / longer(picture));

/**
 * Sides that a picture can be saved with, its own first. A flat drawing is drawn anew in any size;
 * other pictures can only be enlarged.
 */
export function sides(picture: Picture, flat: boolean, most: number): (number | null)[] {
  const own = longer(picture);
  const possible = SIDES.filter((side) => side > own && side <= most);
  return [null, ...possible.filter((side) => flat || times(picture, side) <= LARGEST)];
}

/** What is saved where nobody chose: a size worth keeping. */
export function usual(picture: Picture, flat: boolean, most: number): Choice {
  const all = sides(picture, flat, most);
  const side = all.findLast((each) => each !== null && each <= WORTH) ?? null;
  return { format: "png", side, background: "", clean: false };
}

/** The pixels that a file will have. */
export const savedSide = (picture: Picture, side: number | null): number => side ?? longer(picture);

export function savedUrl(picture: Picture, flat: boolean, choice: Choice): string {
  const { format, side, background, clean } = choice;
  if (format !== "svg" && (!flat || side === null))
    return api.fileUrl(picture.id, { format, scale: times(picture, side), background, clean });
  const query = new URLSearchParams();
  if (format !== "svg") query.set("format", format);
  if (format !== "svg" && side !== null) query.set("side", String(side));
  if (background) query.set("background", background);
  if (clean) query.set("clean", "1");
  return `/api/pictures/${picture.id}/${format === "svg" ? "svg" : "rendered"}?${query}`;
}

const SUFFIX: Record<Format, string> = { png: "png", webp: "webp", jpeg: "jpg", svg: "svg" };

/** Words and seed of a picture, or neither where the file is to tell nothing. */
export function fileName(picture: Picture, { format, clean }: Choice): string {
  const words = picture.prompt
    .toLowerCase()
    .replace(/[^\p{L}\p{N}]+/gu, "-")
    .replace(/^-|-$/g, "")
    .slice(0, 60);
  const name = clean ? "asymflow" : `${words || "picture"}-${picture.seed}`;
  return `${name}.${SUFFIX[format]}`;
}

/** Save something that the page holds itself. */
export function save(data: Blob, name: string): void {
  const url = URL.createObjectURL(data);
  const link = Object.assign(document.createElement("a"), { href: url, download: name });
  link.click();
  setTimeout(() => URL.revokeObjectURL(url), 60_000);
}
