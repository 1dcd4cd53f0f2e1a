"""Panic: when few instances are fit, all are used, so that the few are not buried.

https://www.envoyproxy.io/docs/envoy/latest/intro/arch_overview/upstream/load_balancing/panic_threshold
"""

from __future__ import annotations


def panics(fit: int, total: int, threshold: float) -> bool:
    """Whether so few are fit that all shall be used.

    Args:
        fit: Instances that are healthy and not ejected.
        total: All instances.
        threshold: Share of fit ones, 0 to 1, below which there is panic; 0 for never.
    """
    return fit < total * threshold
