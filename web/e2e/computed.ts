/** What processes have computed, from Linux: unlike a clock, it leaves out what others take. */

import { readdirSync, readFileSync } from "node:fs";

const TICK_MS = 10;

const read = (path: string): string => {
  try {
    return readFileSync(path, "utf8");
  } catch {
    return ""; // it has ended meanwhile
  }
};

/** A process and all that it started, and what those did. */
function family(root: number): number[] {
  const processes = readdirSync("/proc").filter((name) => /^\d+$/.test(name));
  const parents = processes.map((pid) => {
    const stat = read(`/proc/${pid}/stat`);
    const parent = stat.slice(stat.lastIndexOf(")") + 2).split(" ")[1];
    return [Number(pid), Number(parent)] as const;
  });
  const found = [root];
  for (const member of found)
    found.push(...parents.filter(([, parent]) => parent === member).map(([pid]) => pid));
  return found;
}

/** Milliseconds that a process, or one and all that it started, have computed so far. */
export function computed(pid: number, { all = false } = {}): number {
  const ticks = (all ? family(pid) : [pid]).map((each) => {
    const stat = read(`/proc/${each}/stat`);
    const fields = stat.slice(stat.lastIndexOf(")") + 2).split(" ");
    return Number(fields[11] ?? 0) + Number(fields[12] ?? 0);
  });
  return ticks.reduce((sum, each) => sum + each, 0) * TICK_MS;
}
