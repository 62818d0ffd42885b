import { svelte } from "@sveltejs/vite-plugin-svelte";
import { defineConfig } from "vitest/config";

// `ASYMFLOW` names a running studio to develop against: `npm run dev` then proxies to it.
const server = process.env.ASYMFLOW ?? "http://127.0.0.1:7860";

export default defineConfig({
  plugins: [
    svelte(),
    {
      // The page chooses its theme in code: painting waits for it, so nothing flashes.
      name: "paint-after-script",
      transformIndexHtml: {
        order: "post",
        handler: (html) =>
          html.replace('<script type="module"', '<script type="module" blocking="render"'),
      },
    },
  ],
  build: {
    outDir: process.env.ASYMFLOW_STATIC ?? "../src/asymflow/server/static",
    emptyOutDir: true,
    // Everything is a file of our own: the content security policy allows nothing inline.
    assetsInlineLimit: 0,
    modulePreload: { polyfill: false },
    target: "es2022",
  },
  server: {
    proxy: Object.fromEntries(["/api", "/v1"].map((path) => [path, { target: server }])),
  },
  test: { include: ["tests/**/*.test.ts"] },
});
