"""Who runs the loop over time.

A backend is a module with three functions: `supports(call)` returns None, or the reason why it
can't serve the call; `run(call)` returns the output and each direction's final state;
`source(call)` returns the code generated for the call.
"""

# In the order in which "auto" tries them; on a GPU fused precedes cudnn where fuse/measured.csv says it is faster.
BACKENDS = {
    "cudnn": "recurlab.backends.cudnn",
    "fused": "recurlab.backends.fused",
    "eager": "recurlab.backends.eager",
}
