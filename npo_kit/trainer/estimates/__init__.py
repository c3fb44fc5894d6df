"""What a run will take, before it begins."""

from npo_kit import facade

__all__, __getattr__, __dir__ = facade(__name__, {"totals": ("Estimate", "calibrate", "estimate")})
