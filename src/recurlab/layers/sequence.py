"""A layer's input in any accepted form, converted to (T, B, I) with its masks, and its output converted back."""

from collections.abc import Callable
from dataclasses import dataclass, replace

import torch
from torch import Tensor
from torch._subclasses.fake_tensor import FakeTensor
from torch.nn import Parameter
from torch.nn.utils.rnn import PackedSequence, pack_padded_sequence, pad_packed_sequence

from recurlab.backends.call import transformed
from recurlab.errors import RecurlabError
from recurlab.fuse.cpu import compiler
from recurlab.fuse.observers import observed
from recurlab.fuse.packing import Packing


@dataclass(frozen=True)
class Sequence:
    """The sequences that a layer runs over.

    Attributes:
        input: (T, B, I), 0 where masked, but not where `packing` is given.
        mask: boolean (T, B), False at steps to skip, or None, as where there is a `packing`.
        lengths: int64 (B,) on the CPU, if steps are skipped by lengths that the host knows, or None.
        packing: of these lengths, on the CPU, or None.
        resets: boolean (T, B) or None.
        batched: whether the caller's tensors have a batch dimension.
        restore: converts an output (T, B, F) to the form of the input.
    """

    input: Tensor
    mask: Tensor | None
    lengths: Tensor | None
    packing: Packing | None
    resets: Tensor | None
    batched: bool
    restore: Callable[[Tensor], Tensor | PackedSequence]


def arrange(
    input: Tensor | PackedSequence,
    features: int,
    *,
    batch_first: bool,
    lengths: Tensor | list[int] | None,
    mask: Tensor | None,
    resets: Tensor | None,
    backwards: bool = False,
) -> Sequence:
    """Bring an input to (T, B, I); see `recurlab.RNN.forward` for what is accepted.

    Raises:
        RecurlabError: for a wrong shape or dtype, an empty sequence, or lengths out of range.
    """
    if isinstance(input, PackedSequence):
        return _arrange_packed(input, features, lengths, mask, resets, backwards)
    if not isinstance(input, Tensor):
        raise RecurlabError(f"input={type(input).__name__}: must be a tensor or a PackedSequence")
    if input.dim() not in (2, 3) or input.shape[-1] != features:
        layout = "(B, T, I)" if batch_first else "(T, B, I)"
        raise RecurlabError(f"input={_shape(input)}: must be {layout} or unbatched (T, I) with I={features}")
    batched = input.dim() == 3
    first = batch_first and batched
    x = input.transpose(0, 1) if first else input if batched else input.unsqueeze(1)
    if x.shape[0] == 0:
        raise RecurlabError(f"input={_shape(input)}: an empty sequence can't be run")

    rows = {"mask": mask, "resets": resets}
    for name, flags in rows.items():
        if flags is None:
            continue
        if not isinstance(flags, Tensor) or flags.dtype != torch.bool:
            raise RecurlabError(f"{name}={getattr(flags, 'dtype', type(flags))}: must be a tensor of torch.bool")
        if flags.shape != input.shape[:-1]:
            raise RecurlabError(f"{name}={_shape(flags)}: must be {_shape(input)[:-1]}, the input without its features")
        if flags.device != input.device:
            raise RecurlabError(f"{name} on {flags.device}: must be on {input.device}, as the input is")
        rows[name] = flags.transpose(0, 1) if first else flags if batched else flags.unsqueeze(1)
    known: Tensor | None = None
    packing: Packing | None = None
    if lengths is not None:
        if mask is not None:
            raise RecurlabError("lengths and mask: give one of them; lengths are the mask of right padding")
        counts, shortest = _checked(lengths, x)
        known = counts.long() if counts.device.type == "cpu" else None  # the host must not wait for a device
        if known is None or shortest is None or x.device.type != "cpu" or observed():
            rows["mask"] = _mask(counts, x)
        elif shortest < x.shape[0]:
            packing = Packing(known, x.shape[0])
            rows["mask"] = packing.mask if backwards else None
        else:
            known = None
    if rows["mask"] is not None and packing is None:
        x = x.masked_fill(~rows["mask"].unsqueeze(-1), 0)
    if backwards:
        x, rows = _reversed(x, rows, by_sample=lengths is not None and rows["mask"] is not None)

    def restore(output: Tensor) -> Tensor:
        return output.transpose(0, 1) if first else output if batched else output.squeeze(1)

    flags = rows["mask"] if packing is None else None
    return Sequence(x, flags, known, packing, rows["resets"], batched, restore)


def _reversed(x: Tensor, rows: dict[str, Tensor | None], *, by_sample: bool) -> tuple[Tensor, dict[str, Tensor | None]]:
    """Return an input (T, B, I) with its mask and resets, reversed in time: as a whole, or each sample in its length.

    A boundary between steps t - 1 and t stays between them, so that t - 1 is marked instead of t;
    one before step 0 would lie after the last step and is dropped.
    """
    mask, resets = rows["mask"], rows["resets"]
    if not by_sample:
        if resets is not None:
            resets = torch.cat([torch.zeros_like(resets[:1]), resets.flip(0)])[:-1]
        return x.flip(0), {"mask": None if mask is None else mask.flip(0), "resets": resets}
    assert mask is not None
    length = x.shape[0]  # not len(x), which would be a constant in an exported graph
    steps = torch.arange(length, device=x.device).unsqueeze(1)
    from_end = mask.sum(0) - steps  # (T, B): steps from the boundary before t to the sample's end, > 0 if valid
    if resets is not None:
        resets = mask & (steps > 0) & resets.gather(0, from_end.clamp(0, length - 1))
    source = torch.where(mask, from_end - 1, steps)  # (T, B): the step of x that each step reads
    return x.gather(0, source.unsqueeze(-1).expand_as(x)), {"mask": mask, "resets": resets}


def _arrange_packed(
    input: PackedSequence, features: int, lengths: object, mask: Tensor | None, resets: Tensor | None, backwards: bool
) -> Sequence:
    if lengths is not None or mask is not None:
        raise RecurlabError("lengths or mask: a PackedSequence carries its own lengths")
    if input.data.shape[-1] != features:
        raise RecurlabError(f"input.data={_shape(input.data)}: must have I={features} features")
    packing = Packing.of(input) if _is_plain(input.data) else None
    x, sizes = pad_packed_sequence(input) if packing is None else (packing.unpack(input.data), packing.lengths)

    def pack(output: Tensor) -> Tensor:
        if packing is not None:
            return packing.pack(output)
        order = input.sorted_indices
        if order is None:
            return pack_padded_sequence(output, sizes).data
        return pack_padded_sequence(output.index_select(1, order), sizes[order.cpu()]).data

    def restore(output: Tensor) -> PackedSequence:
        return PackedSequence(pack(output), input.batch_sizes, input.sorted_indices, input.unsorted_indices)

    padded = arrange(x, features, batch_first=False, lengths=sizes, mask=None, resets=resets, backwards=backwards)
    return replace(padded, restore=restore)


def mask_of(lengths: Tensor | list[int], x: Tensor) -> Tensor:
    """Return the mask (T, B) of right-padded sequences x (T, B, ...).

    Raises:
        RecurlabError: for lengths that are not B whole numbers from 1 to T.
    """
    return _mask(_checked(lengths, x)[0], x)


def _mask(counts: Tensor, x: Tensor) -> Tensor:
    return torch.arange(x.shape[0], device=x.device).unsqueeze(1) < counts.to(x.device)


def _checked(lengths: Tensor | list[int], x: Tensor) -> tuple[Tensor, int | None]:
    """Return the lengths of x (T, B, ...) as a tensor, and the least of them; None where no number may be read."""
    steps, batch = x.shape[:2]
    counts = torch.as_tensor(lengths, dtype=None if batch else torch.int64)  # an empty list has no dtype of its own
    if counts.shape != (batch,) or counts.is_floating_point() or counts.dtype == torch.bool:
        raise RecurlabError(
            f"lengths={_shape(counts)} {counts.dtype}: must be whole numbers, one for each of B={batch}"
        )
    values = _values(counts)
    if values is None or not batch:
        return counts, None
    least, most = map(int, values.aminmax())
    if not 1 <= least <= most <= steps:
        bad = values[(values < 1) | (values > steps)]
        raise RecurlabError(f"lengths={int(bad[0])}: each must be from 1 to T={steps}")
    return counts, least if values is counts else None


def _values(tensor: Tensor) -> Tensor | None:
    """Return a tensor whose values can be read, without the wrappers of torch.func; None if there are no values."""
    if torch.compiler.is_compiling():  # reading a value would break the graph
        return None
    while torch._C._functorch.is_functorch_wrapped_tensor(tensor):
        tensor = torch._C._functorch.get_unwrapped(tensor)
    return None if tensor.is_meta or isinstance(tensor, FakeTensor) else tensor


def _is_plain(data: Tensor) -> bool:
    """Return whether data can be moved by compiled code: it is on the CPU, and nobody else has to see that."""
    if observed() or transformed() or type(data) not in (Tensor, Parameter):
        return False
    return data.is_cpu and data.dim() == 2 and compiler.unavailable() is None


def _shape(tensor: Tensor) -> tuple[int, ...]:
    return tuple(tensor.shape)
