"""The notebooks' exercises, figures, tables and widgets."""

from npo_kit import facade

__all__, __getattr__, __dir__ = facade(
    __name__,
    {
        "answer_table": ("side_by_side",),
        "diagrams": ("from_dpo_to_npo", "three_models"),
        "exercises": ("check", "hint"),
        "figures": ("ratio_curves", "run_curves", "trade_off", "weight_curves"),
        "meters": ("first_look", "first_look_widget"),
        "step_lengths": ("measure_steps",),
        "words": ("explain",),
        "widgets": ("LiveRun", "ratio_widget", "steps_widget", "synthetic_widget", "weight_widget"),
    },
)
