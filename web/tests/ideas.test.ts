import { render } from "svelte/server";
import { afterEach, expect, test, vi } from "vitest";
import Prompt from "../src/components/Prompt.svelte";
import type { Info } from "../src/lib/contract";
import { translator } from "../src/lib/i18n.svelte";
import { ideasIn } from "../src/lib/ideas";

vi.stubGlobal("document", { documentElement: {} });
vi.stubGlobal("localStorage", { setItem: () => undefined, getItem: () => null });

const known = {
  ideas: ["an egg", "a newspaper"],
  idea_names: {
    de: { "an egg": "Ei", "a newspaper": "Zeitung" },
    fr: { "an egg": "œuf" },
  },
};
const texts = (language: string) => ideasIn(language, known).map(({ text }) => text);

afterEach(() => translator.choose("en"));

test("ideas are in the language of the page, in their order", () => {
  expect(texts("de")).toEqual(["Ei", "Zeitung"]);
  expect(ideasIn("de", known).map(({ english }) => english)).toEqual([false, false]);
});

test("an idea without a name is said in English, and said to be", () => {
  expect(ideasIn("fr", known)).toEqual([
    { text: "œuf", english: false },
    { text: "a newspaper", english: true },
  ]);
});

test("a language without names has the English ideas, as a model without names has", () => {
  for (const language of ["en", "ja"]) expect(texts(language)).toEqual(known.ideas);
  const classes = { ideas: ["constructor", "tench"], idea_names: {} };
  expect(ideasIn("de", classes).map(({ text }) => text)).toEqual(classes.ideas);
  const odd = { ideas: ["constructor"], idea_names: { de: { "an egg": "Ei" } } };
  expect(ideasIn("de", odd)).toEqual([{ text: "constructor", english: true }]);
});

test("the page switches its ideas with its language", async () => {
  const card = { draws: "It draws.", flat: true };
  const info = { ...known, card, model: { id: "m" }, limits: { prompt_characters: 500 } };
  const offered = () => {
    const { body } = render(Prompt, { props: { info: info as unknown as Info } });
    const found = [...body.matchAll(/<button class="idea[^"]*"([^>]*)>(?:<!--.*?-->)*([^<]*)/g)];
    return Object.fromEntries(found.map(([, rest, text]) => [text, rest?.includes('lang="en"')]));
  };
  expect(offered()).toEqual({ "an egg": true, "a newspaper": true });
  await translator.choose("fr");
  expect(offered()).toEqual({ œuf: false, "a newspaper": true });
  await translator.choose("de");
  expect(offered()).toEqual({ Ei: false, Zeitung: false });
});
