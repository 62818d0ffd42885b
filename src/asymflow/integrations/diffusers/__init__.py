"""`asymflow.accelerate(pipeline)` and a scheduler for pipelines of the library diffusers."""
