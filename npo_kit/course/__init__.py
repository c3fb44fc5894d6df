"""The notebooks' exercises, figures, tables and widgets."""

from npo_kit import facade

__all__, __getattr__, __dir__ = facade(
    __name__,
    {
        "answer_table": ("side_by_side",),
        "exercises": ("check", "hint"),
        "figures": ("ratio_curves", "run_curves", "trade_off", "weight_curves"),
        "widgets": ("LiveRun", "ratio_widget", "steps_widget", "synthetic_widget", "weight_widget"),
    },
)
