/**
 * Prompt matrices: `{red|blue} car` stands for two prompts, and a backslash takes the sign behind
 * it as it is. The server expands them; the page only counts them beforehand and lays the pictures
 * out in a table.
 */

/** An escaped sign, or a group of at least two alternatives. */
const PART =
  /\\[\\{}|]|\{((?:\\[\\{}|]|[^\\{}|]|\\(?![\\{}|]))*(?:\|(?:\\[\\{}|]|[^\\{}|]|\\(?![\\{}|]))*)+)\}/g;
const SIGN = /\\[\\{}|]|[^]/gu;

function choices(group: string): string[] {
  const found = [""];
  for (const [sign] of group.matchAll(SIGN)) {
    if (sign === "|") found.push("");
    else found[found.length - 1] += sign.length > 1 && sign[0] === "\\" ? sign.slice(1) : sign;
  }
  return found.map((choice) => choice.trim());
}

/** The alternatives of every group, in order; a brace without a bar or a partner is text. */
export function groups(prompt: string): string[][] {
  return [...prompt.matchAll(PART)].flatMap(([, group]) =>
    group === undefined ? [] : [choices(group)],
  );
}

export function combinations(prompt: string): number {
  return groups(prompt).reduce((product, group) => product * group.length, 1);
}

/** What has to be written for a prompt that is meant as it stands. */
export function escaped(prompt: string): string {
  return prompt.search(PART) < 0 ? prompt : prompt.replace(/[\\{]/g, "\\$&");
}

/** Whether every combination has words; "{|}" stands for two pictures of nothing. */
export const hasWords = (prompt: string): boolean =>
  prompt
    .replace(PART, (whole, group: string | undefined) =>
      group === undefined || choices(group).every((choice) => choice !== "") ? whole : "",
    )
    .trim() !== "";

/** Rows and columns of a table of the combinations, or null where one row says it better. */
export function table(prompt: string): { rows: string[]; columns: string[] } | null {
  const [rows, columns, ...rest] = groups(prompt);
  return rows && columns && rest.length === 0 ? { rows, columns } : null;
}
