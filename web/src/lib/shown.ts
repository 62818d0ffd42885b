/** Sizes of pictures that match one that somebody brings, and names as people read them. */

import type { Job, Sizes } from "./contract";

interface Size {
  width: number;
  height: number;
}

/** Sides that are tried, at most: more would be no nearer to any picture. */
const MANY = 64;

/** Whether a model can draw a size. */
export function possible(sizes: Sizes, { width, height }: Size): boolean {
  const { native, smallest, largest, multiple, fixed } = sizes;
  if (fixed) return width === native.width && height === native.height;
  return [width, height].every(
    (side) => side >= smallest && side <= largest && side % multiple === 0,
  );
}

const longer = ({ width, height }: Size) => Math.max(width, height);

/** Shapes this near to each other, as a factor, are one to the eye. */
const NEAR = 1.04;

/**
 * The largest size that a model is good at whose shape is that of a picture: a larger one of nearly
 * that shape is better than a small one of exactly that shape.
 */
export function matching(width: number, height: number, sizes: Sizes): Size {
  const { native, multiple, fixed } = sizes;
  if (fixed) return native;
  const [low, high] = [Math.min(...sizes.trained), Math.max(...sizes.trained)];
  const step = multiple * Math.max(1, Math.ceil((high - low) / multiple / MANY));
  const first = Math.ceil(low / multiple) * multiple;
  const last = first + Math.floor((high - first) / step) * step;
  const aspect = width / height;
  const off = (size: Size) => Math.abs(Math.log(size.width / size.height / aspect));
  const all: Size[] = [];
  for (let w = first; w <= last; w += step)
    for (let h = first; h <= last; h += step) all.push({ width: w, height: h });
  const least = Math.min(...all.map(off));
  const near = all.filter((size) => off(size) <= least + Math.log(NEAR));
  const longest = Math.max(...near.map(longer));
  return near
    .filter((size) => longer(size) === longest)
    .reduce((best, size) => (off(size) < off(best) ? size : best));
}

/** The side of a download that is worth keeping, in pixels. */
const WORTH = 1024;

/** How many times a picture is enlarged by default, so that its longer side is worth keeping. */
export function enlarging({ width, height }: Size, most: number): number {
  const side = longer({ width, height });
  return Math.max(1, Math.min(Math.round(WORTH / side), Math.floor(most / side), 16));
}

export function shape(width: number, height: number): "square" | "landscape" | "portrait" {
  return width === height ? "square" : width > height ? "landscape" : "portrait";
}

/** "fluent 3d" as a title: "Fluent 3D". */
export const titled = (name: string): string =>
  name.replace(/\S+/g, (word) =>
    /^\d/.test(word) ? word.toUpperCase() : word.charAt(0).toUpperCase() + word.slice(1),
  );

/**
 * What a job draws: the words themselves, or where there are choices, the pattern of them all; the
 * name of a class; nothing for a model that asks nothing.
 */
export const heading = ({ request, slots: [first] }: Job): string =>
  first && first.label === null ? first.prompt : request.prompt;

/** Where a text is in a name, from best to worst: at its begin, as a word, in a word; or nowhere. */
function rank(name: string, wanted: string): number | null {
  const at = name.indexOf(wanted);
  if (at < 0) return null;
  if (at === 0) return 1;
  const words = name.split(/[\s,-]+/);
  if (` ${words.join(" ")} `.includes(` ${wanted} `)) return 2;
  return words.some((word) => word.startsWith(wanted)) ? 3 : 4;
}

/** Classes whose name or number has what somebody looks for, the likeliest first. */
export function classesLike(classes: readonly string[], text: string): number[] {
  const wanted = text.trim().toLowerCase();
  if (wanted === "") return classes.map((_, index) => index);
  const ranked: [number, number][] = [];
  classes.forEach((name, index) => {
    const found =
      String(index) === wanted
        ? 0
        : (rank(name.toLowerCase(), wanted) ?? (String(index).startsWith(wanted) ? 5 : null));
    if (found !== null) ranked.push([found, index]);
  });
  return ranked.sort(([a], [b]) => a - b).map(([, index]) => index);
}

/** The first of several names of a class. */
export const short = (name: string): string => name.split(",")[0] as string;
