import { defineConfig } from "vitest/config";

// One browser and one server, on a machine with few cores: one test after the other.
export default defineConfig({
  test: {
    include: ["e2e/**/*.test.ts"],
    fileParallelism: false,
    testTimeout: 60_000,
    hookTimeout: 120_000,
    reporters: ["verbose"],
  },
});
