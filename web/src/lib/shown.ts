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

/** The size of about as many pixels as the model's own whose aspect is nearest to a picture's. */
export function matching(width: number, height: number, sizes: Sizes): Size {
  const { native, multiple, fixed } = sizes;
  if (fixed) return native;
  const [low, high] = [Math.min(...sizes.trained), Math.max(...sizes.trained)];
  const step = multiple * Math.max(1, Math.ceil((high - low) / multiple / MANY));
  const first = Math.ceil(low / multiple) * multiple;
  const aspect = width / height;
  let best = native;
  let least = Infinity;
  for (let w = first; w <= high; w += step) {
    for (let h = first; h <= high; h += step) {
      const area = Math.log((w * h) / (native.width * native.height));
      const miss = Math.abs(Math.log(w / h / aspect)) + Math.abs(area) / 8;
      if (miss < least) {
        least = miss;
        best = { width: w, height: h };
      }
    }
  }
  return best;
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
