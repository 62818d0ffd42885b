import { expect, test } from "vitest";
import type { Job, Picture, Step } from "../src/lib/contract";
import type { JobEvent } from "../src/lib/events";
import { reduce, refreshed, spent, viewOf, type JobView } from "../src/lib/progress";

const step = (change: Partial<Step> = {}): Step => ({
  t: 0.5,
  tier: "full",
  shrink: 1,
  guided: true,
  ms: 10,
  ...change,
});

const job = (change: Partial<Job> = {}): Job => ({
  id: "j",
  state: "queued",
  created: 1,
  started: null,
  finished: null,
  request: {} as Job["request"],
  position: 1,
  loading: false,
  eta_seconds: 4,
  progress: 0,
  pictures: [],
  slots: [
    { label: "red", prompt: "red car", seed: 1, style: null },
    { label: "blue", prompt: "blue car", seed: 1, style: null },
  ],
  error: null,
  seconds: null,
  forwards: null,
  ...change,
});

const picture = (slot: number): Picture =>
  ({ id: `p${slot}`, job: "j", slot, steps: [step(), step()] }) as Picture;

const made = (slot: number, index: number, preview: string | null = null): JobEvent => ({
  type: "step",
  data: {
    ...step(),
    slot,
    step: index,
    steps: 3,
    forwards: 2,
    progress: 0.25,
    eta_seconds: 3,
    preview,
  },
});

const play = (events: JobEvent[], from: JobView = viewOf(job())) => events.reduce(reduce, from);

test("a job runs from the queue to its pictures", () => {
  const running = play([{ type: "started", data: {} }, made(0, 0, "/a"), made(0, 1)]);
  expect(running.job).toMatchObject({ state: "running", progress: 0.25, eta_seconds: 3 });
  expect(running.slots[0]).toMatchObject({ preview: "/a", total: 3, picture: null });
  expect(running.slots[0]?.steps).toHaveLength(2);
  expect(running.slots[1]?.steps).toEqual([]);

  const done = play(
    [
      { type: "picture", data: { slot: 1, picture: picture(1) } },
      { type: "done", data: { seconds: 2, forwards: 16 } },
    ],
    running,
  );
  expect(done.job).toMatchObject({ state: "done", progress: 1, seconds: 2, forwards: 16 });
  expect(done.slots[1]?.picture?.id).toBe("p1");
  expect(done.slots[1]?.total).toBe(2);
});

test("events that are told twice change nothing", () => {
  const events = [made(0, 0, "/a"), { type: "picture", data: { slot: 0, picture: picture(0) } }];
  const once = play(events as JobEvent[]);
  expect(play(events as JobEvent[], once)).toEqual(once);
});

test("what is told again to those who come late turns nothing back", () => {
  const queued: JobEvent = { type: "queued", data: { position: 2, eta_seconds: 9 } };
  const running = play([queued, { type: "started", data: {} }, made(0, 0, "/a")]);
  expect(reduce(running, queued)).toEqual(running);
  const cancelled = reduce(running, { type: "cancelled", data: {} });
  for (const late of [queued, { type: "started", data: {} } as JobEvent, made(0, 1)])
    expect(reduce(cancelled, late)).toEqual(cancelled);
});

test("a step that was missed leaves its place free", () => {
  const view = play([made(0, 2)]);
  expect(view.slots[0]?.steps[2]).toBeDefined();
  expect(view.slots[0]?.steps[0]).toBeUndefined();
  expect(spent(view.slots[0]?.steps ?? []).steps).toBe(1);
});

test("failures and cancellations say so and keep what was made", () => {
  const begun = play([{ type: "picture", data: { slot: 0, picture: picture(0) } }]);
  const error = {
    message: "Out of memory.",
    type: "server_error",
    param: null,
    code: null,
    values: {},
  };
  expect(reduce(begun, { type: "failed", data: { error } }).job).toMatchObject({
    state: "failed",
    error,
  });
  const cancelled = reduce(begun, { type: "cancelled", data: {} });
  expect(cancelled.job.state).toBe("cancelled");
  expect(cancelled.slots[0]?.picture?.id).toBe("p0");
});

test("a record of the job keeps previews, and an old one does not bring it back to life", () => {
  const seen = play([made(0, 0, "/a")]);
  const fresh = refreshed(seen, job({ state: "running", pictures: [picture(1)] }));
  expect(fresh.slots[0]?.preview).toBe("/a");
  expect(fresh.slots[1]?.picture?.id).toBe("p1");

  const done = reduce(fresh, { type: "done", data: { seconds: 1, forwards: 4 } });
  expect(refreshed(done, job({ state: "running" })).job.state).toBe("done");
});

test("a strip adds up what its steps cost", () => {
  const steps = [step({ shrink: 4, ms: 1 }), step({ guided: false, ms: 5 }), undefined];
  expect(spent(steps)).toEqual({ ms: 6, steps: 2, small: 1, guided: 1 });
});
