/** Everything that the server tells, over one connection that comes back by itself. */

import type { Job } from "./contract";
import { isOver, JOB_EVENTS, type JobEvent } from "./events";

export type Told =
  /** Connected, perhaps again: what happened before is not told. */
  | { kind: "open" }
  /** Cut off; the next attempt comes by itself. */
  | { kind: "lost" }
  /** The state of a job has changed. */
  | { kind: "job"; job: Job }
  /** Something happened to a job. */
  | { kind: "event"; id: string; event: JobEvent };

export type Tell = (told: Told) => void;

/** The server says something every 15 seconds; a connection that is silent longer is dead. */
export const SILENCE_MS = 40_000;
const FIRST_MS = 500;
const LONGEST_MS = 4000;

/** Listen until the function that is given back is called. */
export function follow(tell: Tell): () => void {
  let source: EventSource;
  let timer: ReturnType<typeof setTimeout>;
  let wait = FIRST_MS;

  function open() {
    source = new EventSource("/api/events?steps=true&previews=true");
    source.addEventListener("open", () => {
      wait = FIRST_MS;
      tell({ kind: "open" });
    });
    source.addEventListener("error", again);
    source.addEventListener("beat", alive);
    source.addEventListener("job", (event) => {
      alive();
      tell({ kind: "job", job: (JSON.parse(event.data as string) as { job: Job }).job });
    });
    for (const type of JOB_EVENTS) {
      source.addEventListener(type, (event) => {
        alive();
        const { job, ...data } = JSON.parse(event.data as string) as { job: string };
        tell({ kind: "event", id: job, event: { type, data } as unknown as JobEvent });
      });
    }
    alive();
  }

  function alive() {
    clearTimeout(timer);
    timer = setTimeout(again, SILENCE_MS);
  }

  // Not left to the browser: it gives up where something else than a stream answers, as a proxy
  // does while the server starts.
  function again() {
    source.close();
    clearTimeout(timer);
    timer = setTimeout(open, wait);
    wait = Math.min(2 * wait, LONGEST_MS);
    tell({ kind: "lost" });
  }

  open();
  return () => {
    source.close();
    clearTimeout(timer);
  };
}

/** One stream for many listeners: whoever comes later hears what was told of the jobs that go on. */
export class Shared {
  #listeners = new Set<Tell>();
  #close: (() => void) | null = null;
  #last: Told | null = null;
  #log = new Map<string, Told[]>();

  constructor(private readonly begin: (tell: Tell) => () => void = follow) {}

  join(tell: Tell): () => void {
    this.#listeners.add(tell);
    if (this.#last !== null) tell(this.#last);
    for (const told of this.#log.values()) told.forEach(tell);
    this.#close ??= this.begin((told) => this.#spread(told));
    return () => {
      this.#listeners.delete(tell);
      if (this.#listeners.size > 0) return;
      this.#close?.();
      this.#close = this.#last = null;
      this.#log.clear();
    };
  }

  #spread(told: Told): void {
    if (told.kind === "job" || told.kind === "event") this.#note(told);
    else {
      this.#last = told;
      this.#log.clear(); // a new connection begins with all of it
    }
    for (const tell of this.#listeners) tell(told);
  }

  #note(told: Told & { kind: "job" | "event" }): void {
    const id = told.kind === "job" ? told.job.id : told.id;
    const over = told.kind === "job" ? isOver(told.job.state) : isEnd(told.event);
    if (over) this.#log.delete(id);
    else this.#log.set(id, [...(this.#log.get(id) ?? []), told]);
  }
}

const isEnd = ({ type }: JobEvent) => type === "done" || type === "failed" || type === "cancelled";
