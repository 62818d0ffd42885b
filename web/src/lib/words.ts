/** What a model knows of the words of a prompt. */

import type { ReadPrompt, ReadWord } from "./contract";

export type { ReadPrompt };

/** A prompt with another name in the place of one of its words. */
export const replaced = (prompt: string, word: ReadWord, name: string): string =>
  prompt.slice(0, word.start) + name + prompt.slice(word.end);

/** The name of a language, such as "German" for "de", in another one. */
export function languageOf(tag: string | null, shown: string): string {
  if (tag === null) return "";
  try {
    return new Intl.DisplayNames([shown], { type: "language" }).of(tag) ?? tag;
  } catch {
    return tag;
  }
}
