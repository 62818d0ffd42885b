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

/** Classes whose name or number has what somebody looks for: those that begin so come first. */
export function classesLike(classes: readonly string[], text: string): number[] {
  const wanted = text.trim().toLowerCase();
  if (wanted === "") return classes.map((_, index) => index);
  const ranked: [number, number][] = [];
  classes.forEach((name, index) => {
    const low = name.toLowerCase();
    const at = low.indexOf(wanted);
    if (String(index) === wanted) ranked.push([0, index]);
    else if (at === 0) ranked.push([1, index]);
    else if (at > 0 && /[\s,-]/.test(low[at - 1] as string)) ranked.push([2, index]);
    else if (at > 0) ranked.push([3, index]);
    else if (String(index).startsWith(wanted)) ranked.push([4, index]);
  });
  return ranked.sort(([a], [b]) => a - b).map(([, index]) => index);
}
