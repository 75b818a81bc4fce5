import numpy as np

from minitransformer import exercises


STUDENT = "your-name"  # the id under which you hand in: some numbers are your own


def adapter_parameters(d, m):
    """How many parameters one adapter has."""
    return 2 * d * m + d + m


def forward_multiply_adds(B, T, d, d_ff):
    """The multiply-adds of one block, forward."""
    projections = 4 * B * T * d * d
    scores = 2 * B * T * T * d
    feed_forward = 2 * B * T * d * d_ff
    return projections + scores + feed_forward


def backward_multiply_adds(B, T, d, d_ff, frozen):
    """The multiply-adds of one block, backward."""
    linears = 4 * B * T * d * d + 2 * B * T * d * d_ff
    scores = 2 * B * T * T * d
    weight_gradients = 0 if frozen else linears
    return linears + weight_gradients + 2 * scores


def training_bytes(n):
    """Bytes for gradients and AdamW's state of n parameters, in float32."""
    return 4 * (n + 2 * n)


ANSWERS = {"adapter_parameters": ..., "share": ..., "training_bytes": ..., "frozen_over_full": ...}
own = exercises.my_numbers(8, STUDENT)
shape = own["B"], own["T"], own["d"], own["d_ff"]
n = 2 * own["blocks"] * adapter_parameters(own["d"], own["m"])
forward = forward_multiply_adds(*shape)
frozen = forward + backward_multiply_adds(*shape, True)
full = forward + backward_multiply_adds(*shape, False)
ANSWERS = {
    "adapter_parameters": n,
    "share": 100 * n / own["base_parameters"],
    "training_bytes": training_bytes(n),
    "frozen_over_full": frozen / full,
}
