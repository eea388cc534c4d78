"""Who runs the loop over time.

A backend is a module with `supports(call)`, which gives None or the reason why it can't serve the call; `run(call)`,
which gives the output and each direction's final state; and `source(call)`, which gives what was generated for it.
"""

# The order in which "auto" takes them; on a GPU fused comes before cudnn where fuse/measured.csv has it as the faster.
BACKENDS = {
    "cudnn": "recurlab.backends.cudnn",
    "fused": "recurlab.backends.fused",
    "eager": "recurlab.backends.eager",
}
