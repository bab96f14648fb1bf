"""A training step composed of small programs, one per size that a subnet runs at.

    prepare -> gradient (slot 1) -> gradient (slot 2) -> ... -> update

Every gradient program adds to the same donated accumulator. Each device has an accumulator of its own;
`update` sums them over the devices, once. So a step costs what its slices cost, and widths that change
from step to step compile nothing new.
"""

from __future__ import annotations

import dataclasses
import functools
from collections.abc import Callable, Collection, Sequence

import jax
import numpy as np

from slimjax import sharding
from slimjax.nn.space import Subnet
from slimjax.step import gradient, paths
from slimjax.step.engine import Engine
from slimjax.step.forms import Channels, Form, Forms
from slimjax.step.gradient import Inputs, Outputs
from slimjax.step.paths import Draw
from slimjax.step.programs import Call, ProgramCounts, Programs, outputs
from slimjax.step.slots import Batch, Metrics, Slot
from slimjax.step.state import PARTS, WEIGHTS, TrainState, Tree, Weights
from slimjax.step.update import Further, Penalty, Sums, prepare_program, update_program

Run = Callable[[Call], Tree]
"""What becomes of a program call: it is run, compiled, or only traced."""


class ComposedStep:
    """`(state, batch, subnets) -> (state, metrics)`; the old state is donated.

    Args:
      slots: the subnets of a step, in order.
      draws: int32 [N, G], a sample of the subnets that will be proposed; the rungs are chosen for them.
      penalty: on what is trained, added to the step's loss; its knobs are the entry "penalty" of the algorithm's
        arrays.
      trains: which of `state.PARTS` the update moves: "weights" (parameters, gammas and betas), "structure", or both.
        The others stay as they are.
      draw: (structure parameters, key, subnets [R, G]) -> subnets, which the devices draw anew in each step: its paths.
      confined: of a step of one slot: entries that its subnet does not use stay as they are, and so does what the
        optimiser and the moving average keep of them.

    Raises:
      ValueError: a step of several slots is to be confined; nothing is trained, or what has no optimiser.
    """

    def __init__(
        self,
        engine: Engine,
        slots: Sequence[Slot],
        draws: Subnet | None = None,
        penalty: Penalty | None = None,
        confined: bool = False,
        trains: Collection[str] = (WEIGHTS,),
        draw: Draw | None = None,
    ) -> None:
        if confined and len(slots) != 1:
            raise ValueError(
                f"a confined step has one slot, got {len(slots)}: {[slot.name for slot in slots]}."
            )
        if not trains or any(engine.optimizers.get(part) is None for part in trains):
            known = [part for part, optimizer in engine.optimizers.items() if optimizer is not None]
            raise ValueError(f"trains: expected some of what has an optimiser ({known}), got {list(trains)}.")
        self.engine, self.slots, self.penalty, self.confined = engine, tuple(slots), penalty, confined
        self.trains, self.draw = tuple(part for part in PARTS if part in trains), draw
        draws = np.zeros((0, len(engine.net.space)), np.int32) if draws is None else draws
        self.forms = Forms(engine, self.slots, draws, paths_drawn=draw is not None)
        self.programs = Programs(self.forms.most_programs, engine.platform)

    def __call__(self, state: TrainState, batch: Batch, subnets: Subnet) -> tuple[TrainState, Metrics]:
        """One update. `subnets` is int32 [R, G], one row per slot without a subnet of its own, in order."""
        return self._compose(self.programs.run, state, batch, subnets, self._is_compiled)

    def compile(
        self, state: TrainState, batch: Tree, subnets: Subnet, compiled: Callable[[], None] = lambda: None
    ) -> list[tuple[jax.stages.Compiled, Tree]]:
        """The programs of one step in the order of `parts`, with their arguments; compiled, not run.

        `state` and `batch` may be shapes with shardings, on devices that are described but not there.
        `compiled` is called after each program.
        """
        programs = []

        def get(call: Call) -> Tree:
            program = self.programs.get(call)
            programs.append((program, call.arguments))
            compiled()
            return outputs(program)

        self._compose(get, state, batch, subnets)
        return programs

    def shapes(self, state: TrainState, batch: Batch, subnets: Subnet) -> tuple[TrainState, Metrics]:
        """The shapes of the result, without compiling or computing anything."""
        trace = lambda call: call.make()(*call.arguments)  # noqa: E731
        return jax.eval_shape(lambda s, b: self._compose(trace, s, b, subnets), state, batch)

    def describe(self) -> list[str]:
        """How each slot runs, in words."""
        return self.forms.describe()

    def executed_macs(self, draws: Subnet | None = None) -> float:
        """Forward MACs per image that a step executes, on average over `draws` (None: `expected`)."""
        return self.forms.executed_macs(draws)

    def exact_macs(self, draws: Subnet | None = None) -> float:
        """The floor: the same, with every subnet at exactly its own size."""
        return self.forms.exact_macs(draws)

    def sampled(self, count: int) -> Subnet:
        """int32 [count, R, G]: what `count` steps may be given, from `expected`."""
        return self.forms.sampled(count)

    @property
    def expected(self) -> Subnet:
        """int32 [N, G]: the sample of the subnets that will be proposed."""
        return self.forms.draws

    @property
    def parts(self) -> tuple[str, ...]:
        """The programs that one step runs, in their order: a slot's gradient has the name of the slot."""
        drawn = () if self.draw is None else ("draw",)
        return ("prepare", *drawn, *(slot.name for slot in self.slots), "update")

    def counts(self) -> ProgramCounts:
        """Programs that are alive, and how many were compiled so far."""
        return self.programs.counts()

    def _compose(
        self,
        run: Run,
        state: TrainState,
        batch: Batch,
        subnets: Subnet,
        is_ready: Callable[[Call], bool] = lambda call: True,
    ) -> tuple[TrainState, Metrics]:
        """One step, from the batch to the update.

        Args:
          is_ready: whether a lasting subnet's own program can be used now; if not, it runs as subnets that move.
        """
        raw = (state.key, state.step, batch["image"])
        images = run(Call("prepare", functools.partial(prepare_program, self.engine), raw))
        rows, drawn = iter(subnets), iter(self._drawn(run, state, subnets) if self.draw else subnets)
        sums, teacher = Sums.begun(state), None
        for slot in self.slots:
            subnet: Channels = next(rows) if slot.subnet is None else slot.subnet
            inputs, total = self._inputs(state, slot, sums, images, batch["label"], teacher), sums.total(slot)
            form = self.forms.of(slot, subnet)
            active = next(drawn) if slot.moves else subnet
            call = self._call(slot, form, active, inputs, total)
            if slot.lasting and not form.masked and not is_ready(call):
                call = self._call(slot, self.forms.cover(subnet), active, inputs, total)
            result: Outputs = run(call)
            teacher = result.softmax if teacher is None else teacher
            sums.note(slot, *result[:2], result.metrics)
        # What no slot has renewed goes into the update once, with the state, whose memory the update takes.
        renewed = {name: s for name, s in sums.stats.items() if s is not state.batch_stats[name]}
        sums = sums._replace(stats=renewed)
        # The algorithm's arrays are the host's business: they stay there.
        bare = dataclasses.replace(state, algorithm=None)
        further = Further(
            knobs=state.algorithm["penalty"] if self.penalty else None,
            active=np.asarray(subnet, np.int32) if self.confined else None,
        )
        update = functools.partial(update_program, self.engine, self.trains, self.penalty)
        new, metrics = run(Call("update", update, (bare, sums, further)))
        return dataclasses.replace(new, algorithm=state.algorithm), metrics

    def _inputs(
        self,
        state: TrainState,
        slot: Slot,
        sums: Sums,
        images: jax.Array,
        labels: jax.Array,
        teacher: jax.Array | None,
    ) -> Inputs:
        """What a slot's gradient is computed from, all its subnet's channels active."""
        weights = state.weights(slot.affine)
        return Inputs(
            weights=weights.only(self.trains),
            stats=sums.collection(slot),
            images=images,
            labels=labels,
            teacher=teacher,
            seed=(state.key, state.step) if slot.dropout or slot.mixture.noisy else None,
            fixed=weights.only(PARTS.keys() - self.trains),
            temperature=state.algorithm["temperature"] if slot.mixture.noisy else None,
        )

    def _call(self, slot: Slot, form: Form, active: Tree, inputs: Inputs, total: Weights) -> Call:
        """The call of one slot's gradient program."""
        if form.masked:
            inputs = inputs._replace(active=active if self.draw else np.asarray(active, np.int32))
        # Programs differ by form and task, and by which of their arguments are there.
        absent = tuple(part is None for part in (inputs.stats, *total, inputs.teacher))
        make = functools.partial(gradient.program, self.engine, form, slot.task)
        return Call((form, slot.task, absent), make, (inputs, total))

    def _drawn(self, run: Run, state: TrainState, subnets: Subnet) -> Tree:
        """The rows of `subnets` with paths that the devices have drawn."""
        assert self.draw is not None
        arguments = (state.structure, state.key, state.step, np.asarray(subnets, np.int32))
        return run(Call("draw", functools.partial(paths.draw_program, self.engine, self.draw), arguments))

    def _is_compiled(self, call: Call) -> bool:
        """Whether a lasting subnet can run sliced now. All processes run the same programs, so all must agree."""
        if call.key in self.programs or not self.engine.compile_behind:
            return True
        return sharding.agree(self.programs.compile_behind(call))
