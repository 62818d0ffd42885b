/** Ideas of what to ask for, in the language of the page where they have names there. */

import type { Info } from "./contract";

export interface Idea {
  /** What is shown, and asked for. */
  text: string;
  /** Whether it is English, whatever the page is. */
  english: boolean;
}

export const ideasIn = (
  language: string,
  { ideas, idea_names }: Pick<Info, "ideas" | "idea_names">,
): Idea[] =>
  ideas.map((idea) => {
    const names = idea_names[language] ?? {};
    const name = Object.hasOwn(names, idea) ? names[idea] : undefined;
    return name === undefined ? { text: idea, english: true } : { text: name, english: false };
  });
