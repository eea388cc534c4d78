"""Who runs the loop over time.

A backend is a module with `supports(call)`, which gives None or the reason why it can't serve the call; `run(call)`,
which gives the output and each direction's final state; and `source(call)`, which gives what was generated for it.
"""

# Fastest first: the order in which "auto" takes them.
BACKENDS = {
    "fused": "recurlab.backends.fused",
    "cudnn": "recurlab.backends.cudnn",
    "eager": "recurlab.backends.eager",
}
