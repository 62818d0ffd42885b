"""Networks and pipelines of the library diffusers."""
