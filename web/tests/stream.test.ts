import { afterEach, beforeEach, expect, test, vi } from "vitest";
import type { Job } from "../src/lib/contract";
import { follow, Shared, SILENCE_MS, type Tell, type Told } from "../src/lib/stream";

/** A connection that a test opens, cuts and talks on. */
class Line extends EventTarget {
  static all: Line[] = [];
  closed = false;
  constructor(readonly url: string) {
    super();
    Line.all.push(this);
  }
  close() {
    this.closed = true;
  }
  says(type: string, data: object) {
    this.dispatchEvent(new MessageEvent(type, { data: JSON.stringify(data) }));
  }
}

const newest = () => Line.all.at(-1) as Line;
const job = (id: string, state: Job["state"]) => ({ id, state }) as Job;
const step = (id: string, step: number): Told => ({
  kind: "event",
  id,
  event: { type: "step", data: { step } } as never,
});

beforeEach(() => {
  Line.all = [];
  vi.stubGlobal("EventSource", Line);
  vi.useFakeTimers();
});

afterEach(() => {
  vi.unstubAllGlobals();
  vi.useRealTimers();
});

test("events are told with the job that they belong to", () => {
  const told: Told[] = [];
  follow((each) => told.push(each));
  newest().dispatchEvent(new Event("open"));
  newest().says("job", { job: job("a", "queued") });
  newest().says("step", { job: "a", slot: 0, step: 2 });
  newest().says("beat", {});
  expect(told).toEqual([
    { kind: "open" },
    { kind: "job", job: job("a", "queued") },
    { kind: "event", id: "a", event: { type: "step", data: { slot: 0, step: 2 } } },
  ]);
});

test("a line that is cut is opened again by itself, however often, and never twice", () => {
  const told: Told[] = [];
  const stop = follow((each) => told.push(each));
  for (let times = 1; times <= 20; times++) {
    newest().dispatchEvent(new Event("error"));
    expect(told.at(-1)).toEqual({ kind: "lost" });
    vi.advanceTimersByTime(5000);
    expect(Line.all).toHaveLength(times + 1);
    expect(Line.all.filter(({ closed }) => !closed)).toHaveLength(1);
  }
  newest().dispatchEvent(new Event("open"));
  expect(told.at(-1)).toEqual({ kind: "open" });
  stop();
  vi.advanceTimersByTime(10 * SILENCE_MS);
  expect(Line.all.filter(({ closed }) => !closed)).toHaveLength(0);
});

test("a server that says nothing any more is dead, though its line stands", () => {
  const told: Told[] = [];
  follow((each) => told.push(each));
  newest().dispatchEvent(new Event("open"));
  for (let beats = 0; beats < 10; beats++) {
    vi.advanceTimersByTime(SILENCE_MS - 1);
    newest().says("beat", {});
  }
  expect(Line.all).toHaveLength(1);
  vi.advanceTimersByTime(SILENCE_MS);
  expect(told.at(-1)).toEqual({ kind: "lost" });
  expect(newest().closed).toBe(true);
});

/** A shared stream, and the other end of it. */
function shared() {
  const ends: { tell: Tell; closed: boolean }[] = [];
  const stream = new Shared((tell) => {
    const end = { tell, closed: false };
    ends.push(end);
    return () => {
      end.closed = true;
    };
  });
  return { stream, ends };
}

test("however many listen, there is one stream, and none where nobody does", () => {
  const { stream, ends } = shared();
  const heard: Told[][] = [[], [], []];
  const leave = heard.map((list) => stream.join((told) => list.push(told)));
  ends[0]?.tell({ kind: "open" });
  ends[0]?.tell(step("a", 0));
  expect(ends).toHaveLength(1);
  expect(heard).toEqual(Array(3).fill([{ kind: "open" }, step("a", 0)]));
  leave.slice(1).forEach((each) => each());
  expect(ends[0]?.closed).toBe(false);
  leave[0]?.();
  expect(ends[0]?.closed).toBe(true);
  stream.join(() => undefined);
  expect(ends).toHaveLength(2);
});

test("whoever comes later hears what was told of the jobs that go on, and of no others", () => {
  const { stream, ends } = shared();
  const begun = () => {
    const heard: Told[] = [];
    stream.join((told) => heard.push(told));
    return heard;
  };
  begun();
  const tell = ends[0]?.tell as Tell;
  tell({ kind: "open" });
  tell({ kind: "job", job: job("a", "queued") });
  for (const id of ["a", "b", "a"]) tell(step(id, 0));
  tell({ kind: "event", id: "b", event: { type: "done", data: { seconds: 1, forwards: 1 } } });
  expect(begun()).toEqual([
    { kind: "open" },
    { kind: "job", job: job("a", "queued") },
    step("a", 0),
    step("a", 0),
  ]);
  tell({ kind: "job", job: job("a", "cancelled") });
  expect(begun()).toEqual([{ kind: "open" }]);
  tell(step("c", 0));
  tell({ kind: "lost" });
  expect(begun()).toEqual([{ kind: "lost" }]);
});
