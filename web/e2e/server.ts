/** A real studio on a temporary data folder. */

import { spawn, type ChildProcess } from "node:child_process";
import { once } from "node:events";
import { mkdtempSync, rmSync } from "node:fs";
import { createServer, type AddressInfo } from "node:net";
import { tmpdir } from "node:os";
import { join } from "node:path";
import type { Job } from "../src/lib/contract";

const ASYMFLOW = process.env.ASYMFLOW_BIN ?? "../.venv/bin/asymflow";
const PATIENCE_MS = 90_000;

async function freePort(): Promise<number> {
  const probe = createServer().listen(0, "127.0.0.1");
  await once(probe, "listening");
  const { port } = probe.address() as AddressInfo;
  probe.close();
  await once(probe, "close");
  return port;
}

const pause = (ms: number) => new Promise((resolve) => setTimeout(resolve, ms));

export class Server {
  readonly #folder = mkdtempSync(join(tmpdir(), "asymflow-studio-"));
  /** What is served; by default the model that comes with asymflow. */
  models: readonly string[] = [];
  #process: ChildProcess | null = null;
  #said = "";
  port = 0;

  get url(): string {
    return `http://127.0.0.1:${this.port}`;
  }

  /** Start it, until it is ready or only listens; a second time on the same port and data. */
  async start(until: "ready" | "health" = "ready"): Promise<void> {
    this.port ||= await freePort();
    const options = ["--no-browser", "--port", String(this.port), "--data", this.#folder];
    for (const model of this.models) options.push("--model", model);
    const child = spawn(ASYMFLOW, ["studio", ...options], { stdio: ["ignore", "pipe", "pipe"] });
    this.#process = child;
    const listen = (chunk: Buffer) => (this.#said += String(chunk));
    child.stdout.on("data", listen);
    child.stderr.on("data", listen);
    const deadline = Date.now() + PATIENCE_MS;
    for (;;) {
      if (child.exitCode !== null) throw new Error(`The studio ended:\n${this.#said}`);
      if (Date.now() > deadline) throw new Error(`The studio does not answer:\n${this.#said}`);
      const answer = await fetch(`${this.url}/${until}`).catch(() => null);
      if (answer?.ok) return;
      await pause(200);
    }
  }

  get pid(): number {
    return this.#process?.pid ?? 0;
  }

  async stop(): Promise<void> {
    const child = this.#process;
    this.#process = null;
    if (!child || child.exitCode !== null) return;
    child.kill("SIGTERM");
    await Promise.race([once(child, "exit"), pause(15_000).then(() => child.kill("SIGKILL"))]);
  }

  /** End it as a power cut would. */
  async kill(): Promise<void> {
    const child = this.#process;
    this.#process = null;
    if (!child) return;
    child.kill("SIGKILL");
    await once(child, "exit");
  }

  async remove(): Promise<void> {
    await this.stop();
    rmSync(this.#folder, { recursive: true, force: true });
  }

  /** Stop what is being drawn. */
  async clear(): Promise<void> {
    const { jobs } = await this.get<{ jobs: Job[] }>("/api/jobs?limit=100");
    for (const { id } of jobs.filter(({ finished }) => finished === null))
      await fetch(`${this.url}/api/jobs/${id}`, { method: "DELETE" });
  }

  async get<T>(path: string): Promise<T> {
    const answer = await fetch(this.url + path);
    if (!answer.ok) throw new Error(`${path}: ${answer.status} ${await answer.text()}`);
    return (await answer.json()) as T;
  }

  async bytes(path: string): Promise<Buffer> {
    const answer = await fetch(this.url + path);
    if (!answer.ok) throw new Error(`${path}: ${answer.status} ${await answer.text()}`);
    return Buffer.from(await answer.arrayBuffer());
  }
}
