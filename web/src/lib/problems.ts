/** What went wrong, in the words of the page. */

import * as api from "./api";
import type { ProblemDetail } from "./contract";
import { isKey, t, translator, type Key } from "./i18n.svelte";
import { toasts } from "./toasts.svelte";
import { Unreadable } from "./upload";

/**
 * A problem of the server in the language of the page, by its code; the words of the server where
 * the page has none of its own, or where they need a value that was not sent.
 */
export function told(problem: ProblemDetail): string {
  const { code, message, values = {} } = problem;
  if (translator.language === "en" && message !== "") return message; // it knows more of the case
  const shown = Object.fromEntries(
    Object.entries(values).map(([name, value]) => [
      name,
      typeof value === "number" ? translator.number(value) : value,
    ]),
  );
  if (code !== null && isKey(`error.${code}`)) {
    const text = t(`error.${code}` as Key, shown);
    if (!/\{\w+\}/.test(text)) return text;
  }
  return t("error.other", { message });
}

/** A sentence for any failure that people can do something about; anything else is a defect. */
export function sentence(error: unknown): string {
  if (error instanceof api.Unreachable) return t("problem.unreachable");
  if (error instanceof Unreadable) return t("source.unreadable");
  if (error instanceof api.ApiError && error.status === 401) return t("problem.token");
  if (error instanceof api.ApiError) return told(error.problem);
  throw error;
}

export function report(error: unknown): void {
  toasts.show(sentence(error), "problem");
}
