/** The page in several languages: one JSON file of messages each, English the complete one. */

import en from "../messages/en.json";

export type Key = keyof typeof en;
export const isKey = (name: string): name is Key => Object.hasOwn(en, name);
type Messages = Record<string, string>;

export const LANGUAGES = {
  en: "English",
  de: "Deutsch",
  es: "Español",
  fr: "Français",
  ja: "日本語",
  zh: "简体中文",
} as const;
export type Language = keyof typeof LANGUAGES;

const files = import.meta.glob<{ default: Messages }>(["../messages/*.json", "!**/en.json"]);
const STORED = "asymflow.language";

export const isLanguage = (name: string): name is Language => Object.hasOwn(LANGUAGES, name);

/** The first language of the browser that the page speaks. */
export function preferred(wanted: readonly string[]): Language {
  for (const tag of wanted) {
    const name = tag.toLowerCase().split("-")[0] as string;
    if (isLanguage(name)) return name;
  }
  return "en";
}

/** A message with its `{names}` filled in. */
export function fill(text: string, values: Record<string, string | number>): string {
  return text.replace(/\{(\w+)\}/g, (whole, name: string) =>
    name in values ? String(values[name]) : whole,
  );
}

class Translator {
  language = $state<Language>("en");
  #messages = $state.raw<Messages>(en);

  async start(): Promise<void> {
    const stored = localStorage.getItem(STORED);
    const first = stored !== null && isLanguage(stored) ? stored : preferred(navigator.languages);
    if (first !== "en") await this.#load(first);
  }

  async choose(language: Language): Promise<void> {
    localStorage.setItem(STORED, language);
    await this.#load(language);
  }

  async #load(language: Language): Promise<void> {
    const file = files[`../messages/${language}.json`];
    this.#messages = file ? (await file()).default : en;
    this.language = language;
    document.documentElement.lang = language === "zh" ? "zh-Hans" : language;
  }

  /** A message; with `n` among the values, its form for one or for many. */
  text(key: Key, values: Record<string, string | number> = {}): string {
    const one = `${key}_one`;
    const chosen =
      values.n !== undefined &&
      one in this.#messages &&
      new Intl.PluralRules(this.language).select(Number(values.n)) === "one"
        ? one
        : key;
    return fill(this.#messages[chosen] ?? en[key], values);
  }

  number(value: number, digits = 0): string {
    return new Intl.NumberFormat(this.language, { maximumFractionDigits: digits }).format(value);
  }

  /** Seconds as people say them: 40ms, 0.4s, 12s, 2m. */
  seconds(value: number): string {
    const [amount, unit, digits] =
      value > 0 && value < 0.095
        ? ([Math.max(1, value * 1000), "millisecond", 0] as const)
        : value < 9.95
          ? ([value, "second", 1] as const)
          : value < 99
            ? ([value, "second", 0] as const)
            : ([value / 60, "minute", 0] as const);
    return new Intl.NumberFormat(this.language, {
      style: "unit",
      unit,
      unitDisplay: "narrow",
      maximumFractionDigits: digits,
    }).format(amount);
  }
}

export const translator = new Translator();
export const t = (key: Key, values?: Record<string, string | number>) =>
  translator.text(key, values);
