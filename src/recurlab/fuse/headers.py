"""The headers of C++ that kernels are made of."""

from importlib.resources import files


def template(name: str) -> str:
    """Return the text of a header: ``cpu/problem`` of those for a CPU, ``philox`` of those for every device."""
    folder, _, stem = name.rpartition("/")
    return files("recurlab.fuse").joinpath(folder, "templates", f"{stem}.h").read_text()
