"""How settings of the mesh are checked at construction: every number lies between two bounds."""

from __future__ import annotations

from raftreg.mesh.nouns import MeshConfigError


def within(field: str, value: float, low: float, high: float) -> None:
    """Requires that low <= value <= high; what is not a number (NaN) never is.

    Raises:
        MeshConfigError: With the field, its bounds and the value.
    """
    if not low <= value <= high:
        raise MeshConfigError(f"{field}: must be from {low:g} to {high:g}, not {value:g}")
