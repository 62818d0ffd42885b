import { afterEach, expect, test, vi } from "vitest";
import { ApiError, Unreachable } from "../src/lib/api";
import type { ProblemDetail } from "../src/lib/contract";
import { translator } from "../src/lib/i18n.svelte";
import { sentence, told } from "../src/lib/problems";
import { languageOf, replaced } from "../src/lib/words";

vi.stubGlobal("document", { documentElement: {} });
vi.stubGlobal("localStorage", { setItem: () => undefined });

const problem = (code: string | null, values: ProblemDetail["values"] = {}): ProblemDetail => ({
  message: "The server's own words.",
  type: "invalid_request_error",
  param: null,
  code,
  values,
});

afterEach(() => translator.choose("en"));

test("what the server says is said in the language of the page", async () => {
  expect(told(problem("queue_full"))).toBe("The server's own words.");
  await translator.choose("de");
  expect(told(problem("queue_full"))).toMatch(/warten zu viele/);
  const size = told(problem("impossible_size", { width: 63, height: 1200 }));
  expect(size).toContain("63 × 1.200");
  // A sentence with a hole is none: rather the words of the server, said to be English.
  for (const unknown of [problem("impossible_size"), problem("no_such_code"), problem(null)])
    expect(told(unknown)).toBe("Das Studio meldet (auf Englisch): The server's own words.");
});

test("a code is no way into what is no message", async () => {
  await translator.choose("fr");
  expect(told(problem("other"))).toContain("The server's own words.");
  expect(told(problem("constructor"))).toContain("The server's own words.");
});

test("what people can do nothing about is no sentence", () => {
  expect(sentence(new Unreachable())).toMatch(/does not answer/);
  expect(sentence(new ApiError(401, problem(null)))).toMatch(/needs a token/);
  expect(() => sentence(new RangeError("a defect"))).toThrow(RangeError);
});

test("a name takes the place of a word, and nothing else moves", () => {
  const word = { start: 2, end: 5, text: "foxx", kind: "unknown", drawn: "", near: [] } as never;
  expect(replaced("a fxo in a box", word, "fox")).toBe("a fox in a box");
});

test("languages have names in other languages", () => {
  expect(languageOf("de", "fr")).toBe("allemand");
  expect(languageOf("zh-Hant", "en")).toMatch(/Chinese/);
  expect(languageOf("not a tag", "en")).toBe("not a tag");
  expect(languageOf(null, "en")).toBe("");
});
