"""ComfyUI with the node pack, headless: pictures like the engine's, graphs, a server."""
