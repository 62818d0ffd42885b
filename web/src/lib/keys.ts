/** Whose keys are whose. */

const TEXT =
  "textarea, select, input:not([type=radio], [type=checkbox], [type=range], [type=color])";

/** Whether somebody writes or chooses there, so that letters and arrows belong to that field. */
export const typing = (target: EventTarget | null): boolean =>
  target instanceof HTMLElement && target.closest(TEXT) !== null;

/** Whether a dialog covers the page. */
export const covered = (): boolean => document.querySelector("dialog[open]") !== null;

/**
 * A click, but not the second one of a double click: what it was meant for may have made room for
 * something else under the pointer.
 */
export const single = (act: () => unknown) => (event: MouseEvent) => {
  if (event.detail < 2) void act();
};
