/** How much room there is, in the steps of the layout. */

import { MediaQuery } from "svelte/reactivity";

/** More than one column, and room for all settings below the words. */
export const roomy = new MediaQuery("(min-width: 761px) and (min-height: 820px)");
