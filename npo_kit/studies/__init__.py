"""Runs that belong together: planned, made, compared."""

from npo_kit import facade

__all__, __getattr__, __dir__ = facade(
    __name__,
    {
        "table": (
            *("ORIGINAL", "RETAINED", "best_checkpoint", "find_reference", "last_evaluation"),
            "study_table",
        ),
        "plan": ("StudyPlan",),
        "presets": ("PLANS", "study_plan"),
        "maker": ("make_study",),
        "report": ("study_report",),
        "pocket": (
            *("PocketRecipe", "build_pocket", "build_retained", "pocket_manifest", "pocket_rows"),
        ),
    },
)
