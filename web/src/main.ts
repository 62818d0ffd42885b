import { mount } from "svelte";
import "./app.css";
import App from "./components/App.svelte";
import { translator } from "./lib/i18n.svelte";
import { theme } from "./lib/theme.svelte";

theme.start();
await translator.start();
mount(App, { target: document.body });
