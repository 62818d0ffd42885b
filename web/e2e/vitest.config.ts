import { defineConfig } from "vitest/config";

// One browser and one server, on a machine with few cores: one test after the other.
export default defineConfig({
  test: {
    include: [process.env.E2E ? `e2e/${process.env.E2E}.ts` : "e2e/**/*.test.ts"],
    fileParallelism: false,
    // Far more than is needed: a busy machine is no mistake of the page.
    testTimeout: process.env.E2E ? 1_200_000 : 180_000,
    hookTimeout: 180_000,
    expect: { poll: { timeout: 60_000, interval: 100 } },
    reporters: ["verbose"],
  },
});
