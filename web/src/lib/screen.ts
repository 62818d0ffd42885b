/** How much room there is, in the steps of the layout. */

import { MediaQuery } from "svelte/reactivity";

/** Three columns. */
export const wide = new MediaQuery("min-width: 1181px");
/** More than one column. */
export const broad = new MediaQuery("min-width: 761px");
