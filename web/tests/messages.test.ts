import { readdirSync, readFileSync } from "node:fs";
import { expect, test } from "vitest";
import { fill, isLanguage, LANGUAGES, preferred, translator } from "../src/lib/i18n.svelte";

type Messages = Record<string, string>;
const read = (name: string): Messages =>
  JSON.parse(readFileSync(`src/messages/${name}.json`, "utf8")) as Messages;
const english = read("en");
const names = (text: string) => [...text.matchAll(/\{(\w+)\}/g)].map((match) => match[1]).sort();

const sources = readdirSync("src", { recursive: true, encoding: "utf8" })
  .filter((path) => /\.(svelte|ts)$/.test(path))
  .map((path) => readFileSync(`src/${path}`, "utf8"))
  .join("\n");

test("there is a file of messages for every language, and for no other", () => {
  const files = readdirSync("src/messages").map((file) => file.replace(".json", ""));
  expect(files.sort()).toEqual(Object.keys(LANGUAGES).sort());
});

test.each(Object.keys(LANGUAGES))("%s says everything that English says, and no more", (name) => {
  const messages = read(name);
  // Forms for one are for languages that have them.
  const optional = (key: string) => key.endsWith("_one");
  const needed = Object.keys(english).filter((key) => !optional(key));
  expect(Object.keys(messages).filter((key) => !optional(key))).toEqual(needed);
  for (const key of Object.keys(messages)) expect(english, key).toHaveProperty([key]);
  const hasOne = new Intl.PluralRules(name).resolvedOptions().pluralCategories.includes("one");
  for (const key of Object.keys(english).filter(optional))
    expect(key in messages, `${key} in ${name}`).toBe(hasOne);
});

test.each(Object.keys(LANGUAGES))(
  "%s fills in the same values, and leaves nothing empty",
  (name) => {
    for (const [key, text] of Object.entries(read(name))) {
      expect(text.trim(), key).not.toBe("");
      expect(names(text), key).toEqual(names(english[key] as string));
    }
  },
);

test("every message is used, and every key that is used exists", () => {
  const used = new Set([...sources.matchAll(/"([a-z][\w.]*)"/g)].map((match) => match[1]));
  const prefixes = [...sources.matchAll(/t\(\s*`([\w.]+)\$\{/g)].map((match) => match[1] as string);
  for (const key of Object.keys(english)) {
    const plain = key.replace(/_one$/, "");
    const dynamic = prefixes.some((prefix) => plain.startsWith(prefix));
    const parts =
      sources.includes(`t("${plain}`) || used.has(plain) || sources.includes(`'${plain}'`);
    expect(dynamic || parts, `${key} is never shown`).toBe(true);
  }
});

test("values are filled in by name, and unknown names stay", () => {
  expect(fill("{n} of {m}, {n}", { n: 2 })).toBe("2 of {m}, 2");
});

test("the page speaks the first language of the browser that it knows", () => {
  expect(preferred(["pt-BR", "fr-CA", "de"])).toBe("fr");
  expect(preferred(["zh-Hans-CN"])).toBe("zh");
  expect(preferred(["pt"])).toBe("en");
  expect(isLanguage("constructor")).toBe(false);
});

test.each([
  [0, "0s"],
  [0.0004, "1ms"],
  [0.044, "44ms"],
  [0.096, "0.1s"],
  [0.44, "0.4s"],
  [12.3, "12s"],
  [150, "3m"],
])("%d seconds are %s: no picture takes none", (value, shown) => {
  expect(translator.seconds(value)).toBe(shown);
});
