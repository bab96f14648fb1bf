"""A training step composed of small programs, one per size that a subnet runs at.

    prepare -> gradient (slot 1) -> gradient (slot 2) -> ... -> update

Every gradient program adds to the same donated accumulator. Each device has an accumulator of its own;
`update` sums them over the devices, once. So a step costs what its slices cost, and widths that change
from step to step compile nothing new.
"""

from __future__ import annotations

import dataclasses
import functools
from collections.abc import Callable, Hashable, Iterator, Mapping, Sequence
from typing import TYPE_CHECKING, Any

import jax
import jax.numpy as jnp
import numpy as np
import optax
from jax.flatten_util import ravel_pytree

from slimjax import sharding
from slimjax.nn import batch_stats, losses
from slimjax.nn.layers import merge_variables
from slimjax.nn.space import Subnet
from slimjax.nn.widths import Width
from slimjax.sharding import DATA, REPLICATED, SHARDED
from slimjax.step import optimizers, rungs
from slimjax.step.programs import Programs, outputs
from slimjax.step.state import TrainState

if TYPE_CHECKING:
    from slimjax.step.engine import Batch, Engine, Metrics, Slot

FIXED_PROGRAMS = 2
"""prepare and update."""


@dataclasses.dataclass(frozen=True)
class Form:
    """How a subnet runs: at static sizes and, if `masked`, with active counts within them."""

    sizes: tuple[int, ...]
    masked: bool


def _exact(subnet: Subnet | tuple[int, ...]) -> Form:
    return Form(tuple(int(n) for n in subnet), masked=False)


class ComposedStep:
    """`(state, batch, subnets) -> (state, metrics)`; the old state is donated.

    Args:
      slots: the subnets of a step, in order.
      draws: int32 [N, G], a sample of the subnets that will be proposed; the rungs are chosen for them.
    """

    def __init__(self, engine: Engine, slots: Sequence[Slot], draws: Subnet | None = None) -> None:
        self.engine, self.slots = engine, tuple(slots)
        self.draws = np.zeros((0, len(engine.net.space)), np.int32) if draws is None else draws
        # A rung costs a program for every kind of slot that changes; the first slot starts the accumulator.
        moving = [(i == 0, s.target, s.stats) for i, s in enumerate(self.slots) if s.subnet is None]
        self._kinds = len(set(moving))
        fixed = FIXED_PROGRAMS + len(self.slots) - len(moving) + sum(s.lasting for s in self.slots)
        # No fewer than one step needs, lest programs push each other out in every step.
        most = max(engine.max_programs, fixed + self._kinds)
        self.programs = Programs(most, self._platform)
        self.rungs = self._choose_rungs((most - fixed) // max(1, self._kinds))

    def __call__(self, state: TrainState, batch: Batch, subnets: Subnet) -> tuple[TrainState, Metrics]:
        """One update. `subnets` is int32 [R, G], one row per slot without a subnet of its own, in order."""
        return self._compose(self.programs.run, state, batch, subnets, self._is_compiled)

    def compile(
        self, state: TrainState, batch: Any, subnets: Subnet, compiled: Callable[[], None] = lambda: None
    ) -> list[tuple[Any, Any]]:
        """The programs of one step in their order, with their arguments; compiled, not run.

        `state` and `batch` may be shapes with shardings, on devices that are described but not there.
        `compiled` is called after each program.
        """
        programs = []

        def get(key: Any, make: Callable[[], Any], *arguments: Any) -> Any:
            program = self.programs.get(key, make, *arguments)
            programs.append((program, arguments))
            compiled()
            return outputs(program)

        self._compose(get, state, batch, subnets)
        return programs

    def shapes(self, state: TrainState, batch: Batch, subnets: Subnet) -> tuple[TrainState, Metrics]:
        """The shapes of the result, without compiling or computing anything."""
        direct = lambda key, make, *arguments: make()(*arguments)  # noqa: E731
        return jax.eval_shape(lambda s, b: self._compose(direct, s, b, subnets), state, batch)

    def form_of(self, slot: Slot, subnet: Subnet | tuple[int, ...]) -> Form:
        """How a slot's subnet runs under the engine's policy; a lasting one, once it is compiled."""
        policy, stays = self.engine.policy, slot.subnet is not None or slot.lasting
        return _exact(subnet) if policy == "sliced" or (policy == "auto" and stays) else self._cover(subnet)

    def _cover(self, subnet: Subnet | tuple[int, ...]) -> Form:
        """The cheapest form that serves the subnet and others: a rung, or the full size."""
        exact, policy = _exact(subnet), self.engine.policy
        largest = self.engine.net.space.largest
        index = None if policy == "masked" else rungs.cover(self.rungs, np.asarray(subnet))
        sizes = tuple(int(n) for n in (largest if index is None else self.rungs[index]))
        # A rung that some subnets fill and others do not is one program, not two.
        return exact if self._rungs_are_exact and sizes == exact.sizes else Form(sizes, masked=True)

    def describe(self) -> list[str]:
        """How each slot runs, in words."""
        lines = []
        for slot in self.slots:
            if slot.subnet is not None:
                lines.append(
                    f"{slot.name} {'masked' if self.form_of(slot, slot.subnet).masked else 'sliced'}"
                )
        lasting = [slot.name for slot in self.slots if slot.lasting and self.engine.policy == "auto"]
        if lasting:
            lines.append(f"{', '.join(lasting)} sliced once compiled")
        moving = [s.name for s in self.slots if s.subnet is None and s.name not in lasting]
        if moving and len(self.rungs):
            kind = "exact sizes" if self._rungs_are_exact else "rungs"
            lines.append(f"{', '.join(moving)} in {len(self.rungs)} {kind}")
        elif moving:
            lines.append(f"{', '.join(moving)} {'sliced' if self.engine.policy == 'sliced' else 'masked'}")
        return lines

    def sampled(self, count: int) -> Subnet:
        """int32 [count, R, G]: what `count` steps may be given, from the sample of what will be proposed."""
        moving = sum(slot.subnet is None for slot in self.slots)
        rows = np.arange(count * moving) % max(1, len(self.draws))
        return self.draws[rows].reshape(count, moving, self.draws.shape[1])

    def executed_macs(self, draws: Subnet | None = None) -> float:
        """Forward MACs per image that a step executes, on average over `draws` (the step's own sample)."""
        return self._macs(draws, lambda slot, subnet: np.array(self.form_of(slot, subnet).sizes, np.int32))

    def exact_macs(self, draws: Subnet | None = None) -> float:
        """The floor: the same, with every subnet at exactly its own size."""
        return self._macs(draws, lambda slot, subnet: np.asarray(subnet, np.int32))

    def _macs(self, draws: Subnet | None, sizes: Callable[[Slot, Any], Subnet]) -> float:
        total, moving = 0.0, self.draws if draws is None else draws
        for slot in self.slots:
            subnets = moving if slot.subnet is None else [slot.subnet]
            ran = np.stack([sizes(slot, subnet) for subnet in subnets])
            total += float(self.engine.net.macs(ran).mean())
        return total

    @property
    def _platform(self) -> str:
        return str(self.engine.mesh.devices.flat[0].platform)

    @functools.cached_property
    def _rungs_are_exact(self) -> bool:
        """Whether every drawn subnet has a rung of its own size."""
        return 0 < len(self.rungs) == len(np.unique(self.draws, axis=0))

    def _choose_rungs(self, count: int) -> Subnet:
        """Up to `count` rungs for the subnets that change; their own sizes where so many suffice."""
        static = [slot.subnet for slot in self.slots if slot.subnet is not None]
        draws = self.draws
        if self.engine.policy == "bucketed" and static:
            draws = np.concatenate([draws, np.array(static, np.int32)])
        if self.engine.policy not in ("auto", "bucketed") or not len(draws):
            return np.zeros((0, draws.shape[1]), np.int32)
        return rungs.choose(draws, self.engine.net.macs, count)

    def _is_compiled(self, key: Hashable, make: Callable[[], Any], *arguments: Any) -> bool:
        """Whether a lasting subnet can run sliced now. All processes run the same programs, so all must agree."""
        if key in self.programs or not self.engine.compile_behind:
            return True
        return sharding.agree(self.programs.compile_behind(key, make, *arguments))

    def _compose(
        self,
        run: Callable[..., Any],
        state: TrainState,
        batch: Batch,
        subnets: Subnet,
        is_ready: Callable[..., bool] = lambda *_: True,
    ) -> tuple[TrainState, Metrics]:
        images = run("prepare", self._prepare, state.key, state.step, batch["image"])
        rows: Iterator[Subnet] = iter(subnets)
        stats, measured = dict(state.batch_stats), {}
        totals: dict[str, Any] = {"params": None, "affine": {}}
        teacher = None
        for slot in self.slots:
            subnet = next(rows) if slot.subnet is None else slot.subnet
            total = (totals["params"], totals["affine"].get(slot.affine))
            own = stats[slot.stats] if slot.stats else None
            weights = (state.params, state.affine[slot.affine])
            arguments = (weights, own, images, batch["label"], teacher, total)
            form = self.form_of(slot, subnet)
            if slot.lasting and not form.masked and not is_ready(*self._call(form, slot, arguments, subnet)):
                form = self._cover(subnet)
            result = run(*self._call(form, slot, arguments, subnet))
            (totals["params"], totals["affine"][slot.affine]), own, soft, measured[slot.name] = result
            teacher = soft if teacher is None else teacher
            if slot.stats:
                stats[slot.stats] = own
        # The algorithm's arrays are the host's business: they stay there.
        bare = dataclasses.replace(state, algorithm=None)
        new, metrics = run("update", self._update, bare, totals, stats, measured)
        return dataclasses.replace(new, algorithm=state.algorithm), metrics

    def _call(self, form: Form, slot: Slot, arguments: tuple[Any, ...], subnet: Any) -> tuple[Any, ...]:
        """(key, how to make the program, its arguments) of one slot's gradient."""
        _, own, _, _, teacher, total = arguments
        # Programs differ by form and target, and by which of their arguments are there.
        key = (form, slot.target, own is None, total[0] is None, total[1] is None, teacher is None)
        active = np.asarray(subnet, np.int32) if form.masked else None
        return key, functools.partial(self._gradient, form, slot.target), *arguments, active

    def _prepare(self) -> Callable[..., Any]:
        def prepare(key: jax.Array, step: jax.Array, images: jax.Array) -> jax.Array:
            key = jax.random.fold_in(jax.random.wrap_key_data(key), step)
            return self.engine.prepare_train(key, images)

        split = jax.NamedSharding(self.engine.mesh, SHARDED)
        return jax.jit(prepare, out_shardings=split)

    def _gradient(self, form: Form, target: str) -> Callable[..., Any]:
        """(weights, stats, images, labels, teacher, total, active) -> (total, stats, softmax, metrics)."""
        local = functools.partial(self._local_gradient, form, target)
        inputs = (REPLICATED, REPLICATED, SHARDED, SHARDED, SHARDED, SHARDED, REPLICATED)
        outputs = (SHARDED, REPLICATED, SHARDED, SHARDED)
        mapped = jax.shard_map(local, mesh=self.engine.mesh, in_specs=inputs, out_specs=outputs)
        return jax.jit(mapped, donate_argnums=5)

    def _local_gradient(
        self,
        form: Form,
        target: str,
        weights: Any,
        stats: Any,
        images: jax.Array,
        labels: jax.Array,
        teacher: jax.Array | None,
        total: Any,
        active: jax.Array | None,
    ) -> Any:
        """One device's part: its gradient is added to its own accumulator, without communication.

        With global statistics, the norms' means and variances are the only things that devices exchange.
        """
        weights = jax.lax.pcast(weights, DATA, to="varying")
        widths = self.engine.net.space.widths(form.sizes, active, batch_axis=DATA)
        gradient = functools.partial(self._micro_gradient, widths, target, weights)
        rows = {"images": images, "labels": labels, "teacher": teacher}
        grads, stats, soft, measured = self._over_micro_batches(gradient, rows, stats)
        new = tuple(
            jax.tree.map(lambda g: g[None], g) if t is None else jax.tree.map(lambda a, b: a + b[None], t, g)
            for t, g in zip(total, grads, strict=True)
        )
        return new, stats, soft, jax.tree.map(lambda m: m[None], measured)

    def _micro_gradient(
        self, widths: Mapping[str, Width], target: str, weights: Any, rows: Mapping[str, Any], stats: Any
    ) -> Any:
        """(gradients, statistics, softmax [b, K], metrics) of one (micro-)batch."""
        loss = functools.partial(self._loss, widths, target, rows, stats)
        (value, (logits, new)), grads = jax.value_and_grad(loss, has_aux=True)(weights)
        if stats is not None:
            new = batch_stats.blend(stats, new, self.engine.stats_rate)
        measured = {"loss": value, "top1": losses.correct(logits, rows["labels"]).mean()}
        return grads, new, jax.nn.softmax(logits), measured

    def _loss(
        self, widths: Mapping[str, Width], target: str, rows: Mapping[str, Any], stats: Any, weights: Any
    ) -> tuple[jax.Array, tuple[jax.Array, Any]]:
        """One slot's loss, with its logits [b, K] and its batch's statistics (or None)."""
        engine = self.engine
        mutable = [] if stats is None else ["batch_stats"]

        def forward(weights: Any, images: jax.Array) -> Any:
            params, affine = weights
            variables = merge_variables(params, affine, stats)
            return engine.net.model.apply(variables, images, widths, train=True, mutable=mutable)

        apply = jax.checkpoint(forward) if engine.remat else forward
        logits, new = apply(weights, rows["images"])
        loss = jnp.zeros(())
        if target in ("labels", "both"):
            smooth = (engine.label_smoothing, engine.smoothing_form)
            loss += losses.cross_entropy(
                logits, losses.smooth_labels(rows["labels"], logits.shape[-1], *smooth)
            )
        if target in ("teacher", "both"):
            loss += losses.cross_entropy(logits, rows["teacher"])
        return loss, (logits, new.get("batch_stats"))

    def _over_micro_batches(self, gradient: Callable[..., Any], rows: Any, stats: Any) -> Any:
        """Micro-batches one after the other: gradients and metrics averaged, statistics carried on."""
        parts = self.engine.micro_batches
        if parts == 1:
            return gradient(rows, stats)
        split = jax.tree.map(lambda x: jnp.moveaxis(x.reshape(-1, parts, *x.shape[1:]), 1, 0), rows)

        def part(carry: Any, rows: Any) -> Any:
            total, stats = carry
            grads, stats, soft, measured = gradient(rows, stats)
            return (jax.tree.map(lambda a, b: a + b / parts, total, grads), stats), (soft, measured)

        zeros = jax.tree.map(
            jnp.zeros_like, jax.eval_shape(gradient, jax.tree.map(lambda x: x[0], split), stats)[0]
        )
        # XLA's CPU backend runs a convolution inside a loop twenty times slower than outside of it.
        unroll = parts if self._platform == "cpu" else 1
        (grads, stats), (soft, measured) = jax.lax.scan(part, (zeros, stats), split, unroll=unroll)
        soft = jnp.moveaxis(soft, 0, 1).reshape(-1, soft.shape[-1])
        return grads, stats, soft, jax.tree.map(lambda m: m.mean(0), measured)

    def _update(self) -> Callable[..., Any]:
        """(state, totals, stats, measured) -> (state, metrics): one sum over the devices, one update."""
        engine, devices = self.engine, self.engine.mesh.size

        def reduce(parts: Any) -> Any:
            # Flattened, so that everything crosses the devices in one all-reduce.
            flat, restore = ravel_pytree(jax.tree.map(lambda x: x[0], parts))
            return restore(jax.lax.psum(flat, DATA) / devices)

        reduce_all = jax.shard_map(reduce, mesh=engine.mesh, in_specs=SHARDED, out_specs=REPLICATED)

        def update(state: TrainState, totals: Any, stats: Any, measured: Any) -> tuple[TrainState, Metrics]:
            grads, measured = reduce_all((totals, measured))
            metrics = {f"{slot}/{name}": m for slot, ms in measured.items() for name, m in ms.items()}
            # A set of gammas and betas that no slot of this step uses does not move.
            idle = {name: jax.tree.map(jnp.zeros_like, a) for name, a in state.affine.items()}
            grads["affine"] = idle | grads["affine"]
            metrics["grad_norm"] = optax.tree.norm(grads)
            updates, opt_state = engine.optimizer.update(grads, state.opt_state, state.trainable)
            new: dict[str, Any] = dict(optax.apply_updates(state.trainable, updates))
            average = state.average
            if engine.average_decay is not None:
                average = optimizers.moving_average(average, new, engine.average_decay, state.step)
            new |= {"batch_stats": stats, "opt_state": opt_state, "average": average}
            return dataclasses.replace(state, step=state.step + 1, **new), metrics

        return jax.jit(update, donate_argnums=0)
