"""Who runs the loop over time.

A backend is a module with `supports(call)`, which gives None or the reason why it can't serve the call, and
`run(call)`, which gives the output and each direction's final state.
"""

# Fastest first: the order in which "auto" takes them.
BACKENDS = {
    "eager": "recurlab.backends.eager",
}
