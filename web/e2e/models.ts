/** Small models with random weights, of other kinds than the one that comes with asymflow. */

import { execFileSync } from "node:child_process";

/** JiT: asked for one of the 1,000 classes of ImageNet, opaque, of one size, without images. */
const JIT = `
import sys, torch
from asymflow.models.jit.checkpoint import published_name
from asymflow.models.jit.network import JitConfig, JitModel
torch.manual_seed(0)
model = JitModel(JitConfig(size=48, patch=8, width=32, depth=12, heads=2, hidden=48, bottleneck=8,
    classes=1000, class_tokens=2, class_start=4, noise_scale=48 / 256))
with torch.no_grad():
    for parameter in model.parameters():
        parameter.add_(0.2 * torch.randn_like(parameter))
state = {published_name(name): each for name, each in model.state_dict().items()}
torch.save(state, sys.argv[1])
`;

/** The kind that comes with asymflow, as the tests make it: it looks at some references, and draws nothing. */
const LOOKING = `
import runpy, sys
from pathlib import Path
runpy.run_path("../tests/looking.py")["write"](Path(sys.argv[1]), int(sys.argv[2]))
`;

const PYTHON = process.env.PYTHON ?? "../.venv/bin/python";

/** Write a model of classes to a file. */
export function writeClassModel(path: string): void {
  execFileSync(PYTHON, ["-c", JIT, path]);
}

/** Write a model with references, or without any, to a file. */
export function writeLookingModel(path: string, references = 2): void {
  execFileSync(PYTHON, ["-c", LOOKING, path, `${references}`]);
}
