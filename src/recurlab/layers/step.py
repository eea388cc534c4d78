"""One step of a layer at a time, as for an agent or a stream."""

import torch
from torch import Tensor
from torch.nn.modules.module import _has_any_global_hook

from recurlab.cells.cell import State
from recurlab.errors import RecurlabError
from recurlab.fuse.cpu.step import SAMPLES
from recurlab.layers.direct import ENDLESS, DirectLayer, is_plain
from recurlab.layers.state import repeated


class SteppingLayer(DirectLayer):
    """A layer that also runs step by step."""

    def step(
        self, input: Tensor, hx: Tensor | State | None = None, *, resets: Tensor | None = None
    ) -> tuple[Tensor, Tensor | State]:
        """Run the layer over one step of each sequence, as for an agent or a stream.

        Step by step it gives what `forward` gives for the sequence: in evaluation bit for bit with
        backend="eager" on a CPU in float32 and float64 (on one machine with as many threads), up to
        rounding otherwise. In training each step draws its own masks. Hooks of the layer see a
        sequence of one step.

        With "auto" and "fused", few samples on a CPU and no gradient to be kept, one compiled
        function takes all layers through the step. Else "auto" is eager: a single step has no loop
        to fuse.

        Args:
            input: (B, I), or (I,).
            hx: the state that the last step returned, as in `forward`; None is zero, or what a
                stateful layer carries.
            resets: boolean (B,), or () for an unbatched input; where True the sample's state is
                zero before the step.

        Returns:
            The output, (B, H) or (H,), and the state after the step.

        Raises:
            RecurlabError: for a bidirectional layer or one that goes backwards, or a wrong shape.
        """
        if (found := self._step_compiled(input, hx, resets)) is not None:
            return found
        for key in ENDLESS:
            if getattr(self, key):
                raise RecurlabError(f"{key}=True: such a layer needs whole sequences, it can't run step by step")
        if not isinstance(input, Tensor):
            raise RecurlabError(f"input={type(input).__name__}: must be a tensor")
        if input.dim() not in (1, 2) or input.shape[-1] != self.input_size:
            raise RecurlabError(f"input={tuple(input.shape)}: must be (B, I) or (I,) with I={self.input_size}")
        if resets is not None and (resets.dtype != torch.bool or resets.shape != input.shape[:-1]):
            told = f"resets={tuple(resets.shape)} {resets.dtype}"
            raise RecurlabError(f"{told}: must be torch.bool of shape {tuple(input.shape[:-1])}")
        time = 1 if self.batch_first and input.dim() == 2 else 0
        backend = "eager" if self.backend == "auto" else self.backend
        boundary = None if resets is None else resets.unsqueeze(time)
        # A call of the layer, not of `forward`, so that hooks run: those of pruning compute the weights.
        output, state = self(input.unsqueeze(time), hx, resets=boundary, _backend=backend)
        return output.squeeze(time), state

    def _step_compiled(
        self, input: Tensor, hx: Tensor | State | None, resets: Tensor | None
    ) -> tuple[Tensor, Tensor | State] | None:
        """Return what `step` does, or None where the compiled function can't serve it, whatever the reason."""
        if torch.compiler.is_compiling() or torch.is_grad_enabled() or type(input) is not Tensor:
            return None
        if hx is None and self.stateful:
            hx = self.carried_state
        start = None if hx is None else (hx,) if isinstance(hx, Tensor) else tuple(hx)
        unbatched = input.dim() == 1
        if self._is_hooked() or self._is_seen() or self._is_noisy() or not self._fits(input, start, resets, unbatched):
            return None
        direct = self._direct_for(input.dtype)
        if direct is None:
            return None
        output, end = direct.stepper.run(input.unsqueeze(0) if unbatched else input, start, resets)
        self._note_fused()
        if self.stateful:
            self._leave(tuple(end), [])
        if unbatched:
            output, end = output[0], [state[:, 0] for state in end]
        return output, end[0] if len(end) == 1 else tuple(end)

    def _is_hooked(self) -> bool:
        """Return whether hooks are to see the call, or it repeats one whose state is gone."""
        return (
            bool(self._forward_hooks)
            or bool(self._forward_pre_hooks)
            or _has_any_global_hook()  # type: ignore[no-untyped-call]
            or (self.stateful and repeated())
        )

    def _fits(self, input: Tensor, start: State | None, resets: Tensor | None, unbatched: bool) -> bool:
        """Return whether the shapes are right, and the tensors plain ones in the memory of the host."""
        batch = input.shape[:-1]
        rows = (self.num_layers, *batch, self.hidden_size)
        if len(batch) != 1 - unbatched or input.shape[-1] != self.input_size or not input.is_cpu:
            return False
        if not (unbatched or 0 < batch[0] <= SAMPLES) or not input.is_contiguous():
            return False
        if start is not None and len(start) != len(self.cell.states):
            return False
        if not all(is_plain(state, rows, input.dtype) for state in start or ()):
            return False
        return resets is None or is_plain(resets, batch, torch.bool)
