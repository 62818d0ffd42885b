"""All suites: what each supports, and what it leaves behind. INDEX.md is made from this."""

from __future__ import annotations

from dataclasses import dataclass


@dataclass(frozen=True, slots=True)
class Suite:
    """A benchmark.

    Attributes:
        name: of its module below `benchmarks.suites`, with a space for the dot.
        claim: what its results support.
        command: with the options that the committed results were made with.
        results: files below `benchmarks/results`.
        own: whether it is a module here, rather than a command of asymflow, a script, or a module
            of an earlier commit.
    """

    name: str
    claim: str
    command: str
    results: tuple[str, ...] = ()
    own: bool = True

    @property
    def module(self) -> str:
        return f"benchmarks.suites.{self.name.replace(' ', '.')}" if self.own else ""


_RUN = "python -m benchmarks"
_ONE = "OMP_NUM_THREADS=1"
SUITES = (
    # What the shipped model draws, and how fast.
    Suite(
        "quality",
        "The shipped model's pictures: recall, KID, FD and nearest neighbours beside anchors",
        "asymflow bench quality --plan default --dtype bfloat16 --out DIR; with --no-references",
        (
            "649b2356/quality-64/quality.json",
            "649b2356/quality-words/quality.json",
            "e11a8aad/quality-plans/default.json",
        ),
        own=False,
    ),
    Suite(
        "panel",
        "How many of sixty prompts that nobody tuned to come out as what they name",
        f"{_ONE} {_RUN} panel data/emoji DIR",
        ("649b2356/panel.json", "e11a8aad/panel.json"),
    ),
    Suite(
        "quality of plans",
        "Shipped plans keep the quality of the default grid",
        "asymflow bench quality --plan NAME --dtype bfloat16 --json > FILE",
        tuple(
            f"649b2356/quality-plans/{name}.json"
            for name in ("draft", "fast", "balanced", "best", "default")
        ),
        own=False,
    ),
    Suite(
        "baselines",
        "Shipped plans compared with standard samplers and caches, on one network",
        "asymflow bench baselines --quick --pairs 120 --dtype bfloat16 "
        "--profile runs/plans/profile-64.safetensors --out DIR; "
        "at 128 px: --quick --pairs 24 --size 128 --dtype bfloat16 --out DIR",
        ("649b2356/baselines/baselines.json", "649b2356/baselines-128/baselines.json"),
        own=False,
    ),
    Suite(
        "speed",
        "Overhead of the engine over network calls, and of these over matrix products",
        f"{_ONE} asymflow bench speed --json > FILE",
        ("649b2356/speed.json",),
        own=False,
    ),
    Suite(
        "versions",
        "What the shipped model costs beside the one before: passes, pictures, memory, files",
        f"{_ONE} {_RUN} versions FORMER",
        ("649b2356/versions.json",),
    ),
    Suite(
        "batching",
        "Continuous batching fills its calls whatever the plans, and costs little beside them",
        f"{_ONE} {_RUN} batching",
        ("649b2356/batching.json",),
    ),
    Suite(
        "consistency",
        "Consistency of the model across resolutions",
        f"{_RUN} consistency data/emoji",
        ("649b2356/consistency.json",),
    ),
    Suite(
        "guidance",
        "The default guidance scale, and the times at which guidance is applied",
        f"{_RUN} guidance data/emoji",
        ("12fd6e59/guidance.json",),
    ),
    Suite(
        "larger",
        "Plans at 128 px evaluate the model at half the side",
        f"{_RUN} larger --dtype bfloat16",
        ("649b2356/larger.json",),
    ),
    Suite(
        "growth",
        "How time and memory grow from 32 to 512 px (`--sheet 256` draws growth-sheet.png)",
        f"{_RUN} growth",
        ("649b2356/growth.json",),
    ),
    Suite(
        "tiled",
        "Estimates by tiles: bounded memory up to 2048 px, seams, errors, plans within a limit",
        f"{_ONE} {_RUN} tiled, then --errors",
        ("trained/tiled.json", "trained/tiled-errors.json"),
    ),
    Suite(
        "gpu_check",
        "On a GPU: agreement with the CPU, determinism, overhead, speed and memory, in 4 minutes",
        "scripts/gpu-check",
    ),
    # Plans.
    Suite(
        "plans make",
        "Makes the plans that come with the model, with their evidence",
        f"{_RUN} plans make --side 64 --dtype bfloat16, then --side 128",
    ),
    Suite(
        "plans evidence",
        "The evidence of plan files holds on 96 pictures of other seeds",
        f"{_RUN} plans evidence --dtype bfloat16",
        ("649b2356/evidence.json",),
    ),
    Suite(
        "plans ablation",
        "Contribution of each mechanism of a plan",
        f"{_RUN} plans ablation --side 64 --plan balanced --dtype bfloat16",
        ("649b2356/ablation-64.json",),
    ),
    Suite(
        "plans late",
        "What late steps are worth on the embedded model: cost against error, with and without",
        f"{_ONE} {_RUN} plans late --dtype bfloat16 --rollouts 12 --pictures 48",
        ("649b2356/late.json",),
    ),
    Suite(
        "predicted_error",
        "The predicted error of random plans beside their real error",
        f"{_RUN} predicted_error",
        ("649b2356/predicted-error.json",),
    ),
    Suite(
        "solvers",
        "Solvers of asymflow and diffusers in few steps, each on its best grid",
        f"{_RUN} solvers --dtype bfloat16",
        ("649b2356/solvers.json",),
    ),
    Suite(
        "adaptive",
        "Rules by which each picture decided for itself, beside a shorter plan",
        f"{_RUN} adaptive --by real --dtype bfloat16 --task 0 --action skip "
        "--calibrate 12 --measure 24, at commit 84f41bc or before it",
        ("e11a8aad/adaptive-real.json",),
        own=False,
    ),
    Suite(
        "oracle",
        "What pictures would save at most that knew how difficult they are",
        f"{_RUN} oracle --dtype bfloat16",
        ("649b2356/oracle.json",),
    ),
    # Other networks.
    Suite(
        "families train",
        "Trains the small networks of the next two",
        f"{_RUN} families train unet data/emoji --out runs/families/unet --minutes 15; "
        "told-unet into runs/families/told; jit into runs/families/jit.pth",
    ),
    Suite(
        "families accelerate",
        "accelerate() beside the schedulers of diffusers, on a small DDPM and a small JiT",
        f"{_RUN} families accelerate unet runs/families/unet data/emoji --pictures 64 --most 16 "
        "--default-pictures 8 --timed 5; jit runs/families/jit.pth data/emoji --pictures 32 "
        "--timed 7",
        ("trained/accelerate-unet.json", "trained/accelerate-jit.json"),
    ),
    Suite(
        "families networks",
        "Planning a guided diffusers UNet in v, beside the samplers of diffusers",
        f"{_RUN} families networks runs/families/told data/emoji",
        ("trained/networks.json",),
    ),
    Suite(
        "families promises",
        "What accelerate() states of its plans, beside fresh seeds, on four small networks",
        f"{_ONE} {_RUN} families promises --against 6f057cd",
        ("trained/promises.json",),
    ),
    Suite(
        "fashion train",
        "Trains two models of Fashion-MNIST: a UNet of diffusers and a JiT",
        f"{_ONE} {_RUN} fashion train unet; jit",
        ("trained/fashion-unet.json", "trained/fashion-jit.json"),
    ),
    Suite(
        "fashion judge",
        "What both models draw in many steps, beside the test set: FD, KID, precision and recall",
        f"{_ONE} {_RUN} fashion judge train; score --guidance 1",
        ("trained/fashion-judge.json", "trained/judge.json"),
    ),
    Suite(
        "fashion gate",
        "The gate of distributions beside the judge's FD and KID, on plans of 4 to 12 steps",
        f"{_ONE} {_RUN} fashion gate",
        ("trained/gate.json",),
    ),
    Suite(
        "fashion campaign",
        "Fitted plans beside every standard sampler on its best grid and interval, at equal passes",
        f"{_ONE} {_RUN} fashion campaign --networks jit; --networks unet; --networks embedded "
        "--prices 6 10 --guidance 5 --out DIR",
        (
            "trained/campaign-jit.json",
            "trained/campaign-unet.json",
            "e11a8aad/campaign-embedded.json",
        ),
    ),
    Suite(
        "fashion quality",
        "FD of fitted plans, of the best baselines and of each model's own sampler",
        f"{_ONE} {_RUN} fashion quality --networks jit; --networks unet",
        ("trained/quality-jit.json", "trained/quality-unet.json"),
    ),
    Suite(
        "fashion caches",
        "Caches of outputs and of blocks beside fitted plans, at about equal passes",
        f"{_ONE} {_RUN} fashion caches",
        ("trained/caches.json",),
    ),
    Suite(
        "fashion late",
        "Fitted plans with and without late steps at equal measured time; what the fast part costs",
        f"{_ONE} {_RUN} fashion late",
        ("trained/late.json",),
    ),
    Suite(
        "fashion learned",
        "LD3 and GS, learned by gradients, by their authors' code, beside fitted plans",
        f"{_ONE} {_RUN} fashion learned --ld3 PATH --gas PATH --prices 6 --solvers uni_pc ipndm",
        ("trained/learned.json",),
    ),
    Suite(
        "fashion stated",
        "Whether named plans keep what they state on fresh seeds, and predictions rank plans",
        f"{_ONE} {_RUN} fashion stated",
        ("trained/stated.json",),
    ),
    Suite(
        "fashion ablation",
        "What each ingredient of fitted plans is worth, taken away one at a time",
        f"{_ONE} {_RUN} fashion ablation",
        ("trained/ablation.json",),
    ),
    Suite(
        "fashion effort",
        "What `--effort full` gains over quick fits, and what either takes",
        f"{_ONE} {_RUN} fashion effort",
        ("trained/effort.json",),
    ),
    Suite(
        "fashion adaptive",
        "What steps for each picture could gain over as many for all: oracle, classes, signals",
        f"{_ONE} {_RUN} fashion adaptive --networks jit; --networks unet",
        ("trained/adaptive-jit.json", "trained/adaptive-unet.json"),
    ),
    # Training and the design of the embedded model.
    Suite(
        "parameterisation",
        "Which learns fastest: predicting x_0, velocity, or rank-asymmetric velocity",
        f"{_RUN} parameterisation data/emoji --steps 150",
        ("trained/parameterisation.json",),
    ),
    Suite(
        "designs",
        "Which design learns fastest: patches, a convolutional detail head, references",
        f"{_RUN} designs data/emoji FILE --steps 120; --set skips; --passes; --set gates",
        ("trained/designs.json", "trained/skips.json", "trained/passes.json", "trained/gates.json"),
    ),
    Suite(
        "denoising",
        "Errors of single estimates, of the weights before and those shipped",
        f"{_RUN} denoising data/emoji --weights OLD --weights NEW",
        ("e11a8aad/denoising.json",),
    ),
    Suite(
        "training",
        "The training run of the shipped model: its time, pictures, learning curve and prediction",
        f"{_RUN} training RUN",
        ("649b2356/training.json",),
    ),
    Suite(
        "embedded",
        "The second design beside the shipped weights; what guidance should drop (`--drop`)",
        f"{_RUN} embedded data/emoji DIR --weights shipped --weights FILE --pairs 64 --steps 30; "
        "--weights FILE --drop all words style --scale 2 4 --pairs 48 --steps 10; "
        "--weights FORMER --weights shipped --pairs 200",
        (
            "d78dc5d0/embedded.json",
            "7bbf088d/embedded.json",
            "trained/edges.json",
            "trained/perceptual.json",
            "01cc14d7/embedded.json",
            "649b2356/embedded.json",
        ),
    ),
    Suite(
        "rendering",
        "Where the shipped model loses quality: real drawings, noised to t and drawn on",
        f"{_ONE} {_RUN} rendering data/emoji DIR",
        ("649b2356/rendering.json", "01cc14d7/rendering.json"),
    ),
    Suite(
        "own_pictures",
        "Photographs, clip art and scribbles as references",
        f"{_RUN} own_pictures DIR --weights FILE --steps 20",
        ("d78dc5d0/own-pictures.json", "649b2356/own-pictures.json"),
    ),
    Suite(
        "lookup",
        "How well things are found by names that the library does not have",
        f"{_RUN} lookup",
        ("649b2356/lookup.json",),
    ),
    Suite(
        "languages",
        "Share of prompts in ten languages, and of emoji, that are read as what they name",
        f"{_ONE} {_RUN} languages",
        ("649b2356/languages.json",),
    ),
    Suite(
        "svg",
        "Size and error of pictures traced to SVG, opened by resvg and by Chromium",
        f"{_ONE} {_RUN} svg",
        ("649b2356/svg.json",),
    ),
    # The server.
    Suite(
        "server",
        "50 clients against the engine alone, kill -9, memory, 10,000 damaged pictures",
        f"{_ONE} {_RUN} server",
        ("server/server.json",),
    ),
    Suite(
        "chaos",
        "A server and its network's process, killed, stopped and starved: what was lost",
        f"{_RUN} chaos --rounds 100",
        ("server/chaos.json",),
    ),
    Suite(
        "crowded",
        "An honest client beside silent connections, uploads that never come, and greedy calls",
        f"{_ONE} {_RUN} crowded",
        ("server/crowded.json",),
    ),
    Suite(
        "bulk",
        "Bulk jobs: the same pixels in every division and after 20 kills; a million rows resumed",
        f"{_ONE} {_RUN} bulk",
        ("server/bulk.json",),
    ),
    Suite(
        "prices",
        "What a plan makes of a bulk job: pictures of an hour of a core",
        f"{_ONE} {_RUN} prices",
        ("649b2356/prices.json",),
    ),
    Suite(
        "cluster",
        "Bulk jobs and the HTTP API on a Ray cluster: the same pixels, every row once, the cost",
        f"{_ONE} {_RUN} cluster",
        ("server/cluster.json",),
    ),
    Suite(
        "clients",
        "The clients that people use, as they are published, with a real server",
        "scripts/clients",
        ("server/clients.json",),
    ),
    Suite(
        "page",
        "How quick the page is: first paint, first preview, Live, what previews cost",
        f"{_ONE} scripts/e2e --measure",
        ("server/studio.json",),
        own=False,
    ),
    Suite(
        "page pairs",
        "First preview and Live before and after the mends of docs/faults.md",
        'scripts/e2e --measure -t "first preview|live mode", alternating between two commits',
        ("server/page_pairs.json",),
        own=False,
    ),
    Suite(
        "models",
        "Four models through all commands, the server and the studio: everywhere the same pictures",
        f"{_ONE} {_RUN} models",
        ("server/models.json",),
    ),
    Suite(
        "comfyui",
        "The nodes in real ComfyUIs: the engine's pictures, previews, interruption, measuring",
        f"{_ONE} {_RUN} comfyui --comfyui PATH",
        ("server/comfyui-0.27.0.json", "server/comfyui-0.3.64.json"),
    ),
    Suite("long", "How the steps of .ci/long went", ".ci/long", ("server/long.json",), own=False),
)
