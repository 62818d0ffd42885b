/**
 * Prompt matrices: `{red|blue} car` stands for two prompts. The server expands them; the page
 * only counts them beforehand and lays the pictures out in a table.
 */

/** The alternatives of every group, in order; a brace without a bar or a partner is text. */
export function groups(prompt: string): string[][] {
  return [...prompt.matchAll(/\{([^{}]*\|[^{}]*)\}/g)].map((match) =>
    (match[1] as string).split("|").map((choice) => choice.trim()),
  );
}

export function combinations(prompt: string): number {
  return groups(prompt).reduce((product, choices) => product * choices.length, 1);
}

/** Rows and columns of a table of the combinations, or null where one row says it better. */
export function table(prompt: string): { rows: string[]; columns: string[] } | null {
  const [rows, columns, ...rest] = groups(prompt);
  return rows && columns && rest.length === 0 ? { rows, columns } : null;
}
