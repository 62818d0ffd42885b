/** Sizes of pictures that match one that somebody brings, and names as people read them. */

import type { Job } from "./contract";

const STEP = 8;
const SIDE = 64;
const SMALLEST = 32;
const LARGEST = 128;

/** The size of about 64 x 64 pixels whose aspect is nearest to that of a picture. */
export function matching(width: number, height: number): { width: number; height: number } {
  const aspect = width / height;
  let best = { width: SIDE, height: SIDE };
  let least = Infinity;
  for (let w = SMALLEST; w <= LARGEST; w += STEP) {
    for (let h = SMALLEST; h <= LARGEST; h += STEP) {
      const area = Math.log((w * h) / (SIDE * SIDE));
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

/** What a job draws: the words themselves, or where there are choices, the pattern of them all. */
export const heading = ({ request, slots: [first] }: Job): string =>
  first && first.label === null ? first.prompt : request.prompt;
