/** axe-core in the page. It is injected by the test: the page's own policy allows no such script. */

import { readFileSync } from "node:fs";
import { createRequire } from "node:module";
import type { AxeResults } from "axe-core";
import type { Page } from "playwright-core";

const SOURCE = readFileSync(createRequire(import.meta.url).resolve("axe-core/axe.min.js"), "utf8");
const CONTROLS = "a, button, input, select, textarea, summary, label, figure, [tabindex]";

export async function audit(page: Page): Promise<AxeResults["violations"]> {
  await page.evaluate(SOURCE);
  return page.evaluate(async () => {
    const { axe } = window as unknown as { axe: typeof import("axe-core") };
    return (await axe.run(document, { resultTypes: ["violations"] })).violations;
  });
}

/** Letters that can hardly be read while all controls at once are in some states, such as "hover". */
export async function contrast(page: Page, states: readonly string[]): Promise<string[]> {
  const client = await page.context().newCDPSession(page);
  await client.send("DOM.enable");
  await client.send("CSS.enable");
  const { root } = await client.send("DOM.getDocument", { depth: -1 });
  const { nodeIds } = await client.send("DOM.querySelectorAll", {
    nodeId: root.nodeId,
    selector: CONTROLS,
  });
  await Promise.all(
    nodeIds.map((nodeId) =>
      client
        .send("CSS.forcePseudoState", { nodeId, forcedPseudoClasses: [...states] })
        .catch((error: Error) => {
          // A picture that has come meanwhile takes the place of its preview.
          if (!/Could not find node/.test(error.message)) throw error;
        }),
    ),
  );
  await page.evaluate(SOURCE);
  const found = await page.evaluate(async () => {
    const { axe } = window as unknown as { axe: typeof import("axe-core") };
    const { violations } = await axe.run(document, { runOnly: ["color-contrast"] });
    return violations.flatMap(({ nodes }) =>
      nodes.map(({ html, any: [check] }) => `${html}: ${check?.message}`),
    );
  });
  await client.detach(); // which ends the states
  return found;
}
