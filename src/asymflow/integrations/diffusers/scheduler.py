"""A plan as a scheduler of diffusers: its grid and its order at every step, in any pipeline.

A scheduler determines the timesteps of network calls and the update of the state from the outputs,
which is all of a plan whose tiers are full. Cheaper tiers change the network calls themselves;
`asymflow.accelerate` does that.
"""

from __future__ import annotations

from collections.abc import Mapping
from dataclasses import replace
from pathlib import Path
from threading import get_ident
from typing import Any, ClassVar, Self, cast

import torch
from torch import Tensor

from asymflow.core.checks import as_path, instance
from asymflow.core.errors import InputError, MissingExtra
from asymflow.core.flow import eps_from_x_0, interpolate, per_image
from asymflow.core.stages import Stage, Trajectory, compile_steps
from asymflow.core.state import State, move
from asymflow.core.types import Plan, Tier
from asymflow.integrations.diffusers import hub
from asymflow.models.diffusers.conventions import Convention, convention_of
from asymflow.planning.plan_files import load_plan, plan_from_json, plan_to_json

try:
    import diffusers
    from diffusers.configuration_utils import ConfigMixin, register_to_config
    from diffusers.schedulers.scheduling_ddim import DDIMSchedulerOutput
    from diffusers.schedulers.scheduling_utils import KarrasDiffusionSchedulers, SchedulerMixin
except ImportError as error:
    raise MissingExtra("diffusers", "diffusers") from error


class AsymFlowScheduler(SchedulerMixin, ConfigMixin):
    """Runs a plan inside a pipeline that was not made for it.

        pipe.scheduler = AsymFlowScheduler.from_config(pipe.scheduler.config, plan=plan)

    The number of steps is the plan's, whatever the pipeline requests. States are those
    of the pipeline: alpha x_0 + sigma eps with unit variance, or on the line of a flow.

    Like every scheduler it remembers the picture that it is at, so that it makes one at a time:
    pipelines that run at once need one each; sharing one raises an error.

    Attributes:
        timesteps: one for every estimate of the plan [n].
        sigmas: noise at these timesteps, then 0 [n + 1]: sigma / alpha, or u of a flow.
        betas, alphas_cumprod: as the model was trained; a flow has neither.
    """

    order = 1
    init_noise_sigma = 1.0
    # Their configuration is part of this one, and is accepted when it is loaded.
    _compatibles: ClassVar = [
        *(each.name for each in KarrasDiffusionSchedulers),
        "DDPMScheduler",
        "FlowMatchEulerDiscreteScheduler",
    ]

    @register_to_config
    def __init__(self, plan: dict[str, Any], trained: dict[str, Any], noise: float = 1.0) -> None:
        """From what `from_config` writes into the configuration; `plan` as in a plan file."""
        original: Any = _kind(trained).from_config(trained)
        self._convention: Convention = convention_of(original, noise=noise)
        self._plan = plan_from_json(plan)
        self._check(self._plan)
        # Pipelines look up in their scheduler's configuration what was trained.
        self.register_to_config(
            **{key: value for key, value in dict(original.config).items() if key[0] != "_"}
        )
        self._stages = compile_steps(self._plan.steps)
        for name in ("betas", "alphas_cumprod"):
            if hasattr(original, name):
                setattr(self, name, getattr(original, name))
        self._begin: int | None = None
        self.set_timesteps()
        self._thread = None

    @classmethod
    def from_config(  # pyright: ignore[reportIncompatibleMethodOverride]: a plan has no default
        cls,
        config: Any = None,
        return_unused_kwargs: bool = False,
        *,
        plan: Plan | Path | str | None = None,
        noise: float | None = None,
        **kwargs: Any,
    ) -> Any:
        """For a model that was trained as the configuration of its scheduler says.

        Args:
            config: of a scheduler: `pipe.scheduler.config`.
            return_unused_kwargs: return the arguments that nothing took, too, as diffusers does.
            plan: a plan, a plan file, or a repository with one, "owner/name"; by default that of
                the configuration, if it is of an `AsymFlowScheduler`.
            noise: standard deviation of the noise that a flow pipeline starts from; by default 1,
                or that of the configuration.
            kwargs: in the place of what the configuration says, such as `prediction_type`.

        Raises:
            InputError: the configuration cannot be translated, or the plan has cheaper tiers.
            FileFormatError: the plan file is missing or damaged.
        """
        instance("config", config, Mapping, "Pass pipe.scheduler.config.")
        known = dict(cast("Mapping[str, Any]", config))
        if plan is None and "plan" not in known:
            raise InputError(
                "There is no plan. Pass one: AsymFlowScheduler.from_config(config, plan=plan)."
            )
        trained = known["trained"] if "trained" in known else _trained(known)
        unused: dict[str, Any] = {}
        if kwargs:
            kind = _kind(trained)
            changed, unused = kind.from_config(trained, return_unused_kwargs=True, **kwargs)
            trained = _trained({**changed.config, "_class_name": kind.__name__})
            unused = {key: value for key, value in unused.items() if key in kwargs}
        made = cls(
            known["plan"] if plan is None else _json_of(plan),
            trained,
            float(known.get("noise", 1.0)) if noise is None else noise,
        )
        return (made, unused) if return_unused_kwargs else made

    @classmethod
    def of(cls, plan: Plan, scheduler: Any, *, noise: float | None = None) -> Self:
        """As `from_config`, from a scheduler itself.

        Raises:
            InputError: the scheduler cannot be translated, or the plan has cheaper tiers.
        """
        order = "The order is AsymFlowScheduler.of(plan, pipe.scheduler)."
        instance("plan", plan, Plan, order)
        instance("scheduler", scheduler, SchedulerMixin, order)
        config = {**scheduler.config, "_class_name": type(scheduler).__name__}
        return cls.from_config(config, plan=plan, noise=noise)

    @property
    def plan(self) -> Plan:
        return self._plan

    @property
    def step_index(self) -> int | None:
        return self._index

    @property
    def begin_index(self) -> int | None:
        return self._begin

    def set_begin_index(self, begin_index: int = 0) -> None:
        """Start at a later timestep, as pipelines do that begin with a picture."""
        self._begin = begin_index

    def set_timesteps(
        self, num_inference_steps: int | None = None, device: str | torch.device | None = None
    ) -> None:
        """Begin again; the number of steps is that of the plan."""
        times = torch.tensor([stage.t for stage in self._stages], dtype=torch.float64)
        self.timesteps = self._convention.timestep(times).float().to(device)
        levels = [self._convention.level(*self._scales(float(t))[:2]) for t in (*times, 0.0)]
        self.sigmas = torch.tensor(levels, device=device)
        self._thread: int | None = get_ident()
        self.num_inference_steps = len(self._stages)
        self._begin = self._index = None
        self._forget()

    def scale_model_input(self, sample: Tensor, timestep: Any = None) -> Tensor:
        """The state itself: it has the scale that the network was trained on."""
        return sample

    def add_noise(self, original_samples: Tensor, noise: Tensor, timesteps: Tensor) -> Tensor:
        """alpha x_0 + sigma eps at timesteps [b] or [1]."""
        time = self._convention.time(timesteps.cpu().view(-1))
        alpha, sigma, _ = self._convention.scaled(time)
        return (
            per_image(alpha, original_samples) * original_samples
            + per_image(sigma, original_samples) * noise
        )

    def scale_noise(self, sample: Tensor, timestep: Tensor, noise: Tensor) -> Tensor:
        """`add_noise` as pipelines of flows call it."""
        return self.add_noise(sample, noise, timestep)

    def step(
        self,
        model_output: Tensor,
        timestep: float | Tensor,
        sample: Tensor,
        eta: float = 0.0,
        use_clipped_model_output: bool | None = None,
        generator: object = None,
        return_dict: bool = True,
    ) -> DDIMSchedulerOutput | tuple[Tensor, Tensor]:
        """The state at the next timestep, from the output of the network at this one.

        Args:
            model_output: [b, c, h, w], in the parameterisation of training.
            timestep: one of `timesteps`, in their order.
            sample: the state [b, c, h, w].
            eta: must be 0: a plan draws no noise of its own.
            use_clipped_model_output: as for `DDIMScheduler`, and like there only for its own
                solver, euler. All others take the noise that fits the clipped estimate.

        Raises:
            InputError: the timestep is not one of the plan's, or `eta` is not 0.
        """
        if eta:
            raise InputError(
                f"eta={eta} asks for fresh noise at every step, and a plan has none: it follows "
                "the deterministic path. Leave eta out."
            )
        stage = self._due(timestep)
        x_t, t, s = self.state(sample), float(stage.t), float(stage.s)
        trajectory, state = self._followed(x_t)
        found = self._estimate(model_output, sample, x_t, t)
        x_0 = self._convention.clip_estimate(found)
        state = move(trajectory, state, x_0)
        if stage.step.solver == "euler" and not use_clipped_model_output:
            state = replace(state, x=interpolate(x_0, eps_from_x_0(x_t, found, t), s))
        assert self._index is not None, "`_due` has found it"
        self._index += 1
        z = (state.x * self._scales(s)[2]).to(model_output.dtype)
        # A pipeline in half precision gets its state rounded; the trajectory itself is not.
        self._path = trajectory, state
        self._shown = z
        if self._index == len(self._stages):
            self._forget()
        return DDIMSchedulerOutput(z, x_0) if return_dict else (z, x_0)

    def state(self, sample: Tensor) -> Tensor:
        """x_t of a state of the pipeline [b, c, h, w], when a move is due; at least float32."""
        assert self._index is not None, "`_due` has found it"
        if self._path is not None and sample is self._shown:
            return self._path[1].x
        k = self._scales(float(self._stages[self._index].t))[2]
        return sample.to(torch.promote_types(sample.dtype, torch.float32)) / k

    def __len__(self) -> int:
        return int(self.config["num_train_timesteps"])

    def _followed(self, x_t: Tensor) -> tuple[Trajectory, State]:
        """The state that is due, with what callbacks and masks have changed in it.

        Correctors repeat the last move from where it began. There the change is put so that it
        arrives as it was made: x_s depends on x_t by the factor s / t.
        """
        assert self._index is not None, "`_due` has found it"
        if self._path is None:
            stage = self._stages[self._index]
            if not stage.kept:
                raise InputError(
                    f"Timestep {float(self.timesteps[self._index]):g} is in the middle of a step "
                    f"of plan {self._plan.name!r}, which asks twice as Heun's method does. Begin "
                    "one timestep earlier or later."
                )
            begun = stage.index
            trajectory = Trajectory.of([compile_steps(self._plan.steps[begun:])] * len(x_t), x_t)
            return trajectory, State((0,) * len(x_t), x_t)
        trajectory, state = self._path
        if x_t is state.x:
            return trajectory, state
        anchor, stage = state.anchor, trajectory.stages(state.at)[0]
        if anchor is not None:
            anchor = anchor + (x_t - state.x) * (float(stage.older[0]) / float(stage.t))
        return trajectory, replace(state, x=x_t, anchor=anchor)

    def _forget(self) -> None:
        """Drop all that was kept of a trajectory."""
        self._path: tuple[Trajectory, State] | None = None
        self._shown: Tensor | None = None

    def _due(self, timestep: float | Tensor) -> Stage:
        """The estimate that is due."""
        if self._thread not in (None, get_ident()):
            raise InputError(
                "This AsymFlowScheduler is making another picture: set_timesteps() was called in "
                "another thread. Give every pipeline that runs at the same time a scheduler of its "
                "own, AsymFlowScheduler.of(plan, pipe.scheduler), and make a picture in one thread."
            )
        if self._index is None:
            self._thread = get_ident()
            self._index = self._find(timestep) if self._begin is None else self._begin
        if self._index >= len(self._stages):
            raise InputError(
                f"All {len(self._stages)} steps of plan {self._plan.name!r} are made. Call "
                "set_timesteps() before the next picture."
            )
        tau, due = float(timestep), float(self.timesteps[self._index])
        # Some pipelines round what they pass, to whole numbers or to bfloat16.
        if abs(tau - due) > 1 + due / 128:
            raise InputError(
                f"Timestep {tau:g} is not the one that is due, {due:g}. Pass those of "
                "scheduler.timesteps in their order, and give pictures that are made by turns a "
                "scheduler each."
            )
        return self._stages[self._index]

    def _check(self, plan: Plan) -> None:
        cheap = next((step.tier for step in plan.steps if not step.tier.full), None)
        if cheap is not None:
            raise InputError(
                f"Plan {plan.name!r} asks for the tier {cheap.name!r}, and a scheduler cannot "
                "change the input of a network. Use asymflow.accelerate(pipe, plan), or a plan "
                "of full steps."
            )

    def _estimate(self, model_output: Tensor, sample: Tensor, x_t: Tensor, t: float) -> Tensor:
        """x_0 [b, c, h, w], before it is cut."""
        alpha, sigma, k = self._scales(t)
        # In half precision the state itself, and not what is left of it in the pipeline.
        z = sample if sample.dtype == x_t.dtype else k * x_t
        return self._convention.x_0(z, model_output.to(x_t), alpha, sigma)

    def _find(self, timestep: float | Tensor) -> int:
        tau = torch.as_tensor(timestep).cpu().double()
        distance = (self.timesteps.cpu().double() - tau).abs()
        nearest = int(distance.argmin())
        if float(distance[nearest]) > 1e-3:
            raise InputError(
                f"Timestep {float(tau):g} is not one of plan {self._plan.name!r}: "
                f"{', '.join(f'{float(each):g}' for each in self.timesteps)}. Pass those of "
                "scheduler.timesteps."
            )
        return nearest

    def _scales(self, t: float) -> tuple[float, float, float]:
        """alpha, sigma and k at time t; at 0 the state is the picture."""
        if t == 0:
            return 1.0, 0.0, 1.0
        found = self._convention.scaled(torch.tensor([t], dtype=torch.float64))
        return cast("tuple[float, float, float]", tuple(float(each) for each in found))


class DrivenScheduler(AsymFlowScheduler):
    """For a network whose estimates are made elsewhere, for any tier of the plan."""

    _given: Tensor | None = None

    def due(self, timestep: float | Tensor) -> tuple[Tier, float]:
        """The tier to ask, and the time t."""
        stage = self._due(timestep)
        return stage.tier, float(stage.t)

    def use(self, x_0: Tensor) -> None:
        """Set the estimate [b, c, h, w] for the move that is due."""
        self._given = x_0

    @property
    def convention(self) -> Convention:
        return self._convention

    def _check(self, plan: Plan) -> None:
        """Any plan will do."""

    def _estimate(self, model_output: Tensor, sample: Tensor, x_t: Tensor, t: float) -> Tensor:
        given, self._given = self._given, None
        return super()._estimate(model_output, sample, x_t, t) if given is None else given


def _kind(trained: Mapping[str, Any]) -> Any:
    """The class of the scheduler that a model was trained with.

    Raises:
        InputError: diffusers has none of that name.
    """
    found = getattr(diffusers, str(trained.get("_class_name")), None)
    if found is None:
        raise InputError(
            f"The scheduler that the model was trained with, {trained.get('_class_name')!r}, is "
            "unknown to this version of diffusers. Make the scheduler again with "
            "AsymFlowScheduler.from_config(pipe.scheduler.config, plan=plan)."
        )
    return found


def _trained(config: Mapping[str, Any]) -> dict[str, Any]:
    """What a scheduler's configuration says of training, as values of JSON, and its class.

    Raises:
        InputError: it is of no scheduler.
    """
    found = {
        key: value.tolist() if hasattr(value, "tolist") else value
        for key, value in config.items()
        if key[0] != "_"
    }
    kind = config.get("_class_name")
    if kind is None and "beta_schedule" in found:
        # That of a scheduler that was made and not loaded has no name. All of these agree on the
        # schedule, and those that could clip estimates say whether they do.
        return {
            "clip_sample": False,
            "thresholding": False,
            **found,
            "_class_name": "DDPMScheduler",
        }
    if kind is None and "shift" in found:
        return {**found, "_class_name": "FlowMatchEulerDiscreteScheduler"}
    if kind is None:
        raise InputError(
            f"The configuration ({', '.join(found) or 'empty'}) has no _class_name, and is that of "
            "no scheduler that could be known by the rest. Pass pipe.scheduler.config, or the "
            "scheduler itself: AsymFlowScheduler.of(plan, pipe.scheduler)."
        )
    return {**found, "_class_name": str(kind)}


def _json_of(plan: Plan | Path | str) -> dict[str, Any]:
    """The plan, plan file or repository of a call, as in a plan file.

    Raises:
        InputError: it is something else, or has to be made with the pipeline.
    """
    if isinstance(plan, Plan):
        return plan_to_json(plan)
    if plan in ("auto", "default", "original"):
        raise InputError(
            f"plan={plan!r} is made with the whole pipeline, and a scheduler's configuration does "
            f"not know it. Use asymflow.accelerate(pipe, {plan!r})."
        )
    path = as_path("plan", plan)
    named = isinstance(plan, str) and plan.count("/") == 1 and path.suffix != ".json"
    if named and not path.exists():
        return plan_to_json(hub.pull(str(plan)))
    return plan_to_json(load_plan(path))
