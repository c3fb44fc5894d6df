"""TOFU's metrics of forgetting and of what is kept."""

from npo_kit import facade

__all__, __getattr__, __dir__ = facade(
    __name__,
    {
        "config": ("EvaluationConfig",),
        "evaluation": ("evaluate",),
        "progress": ("Progress", "progress_bars"),
        "scores": (
            *("REAL_SETS", "TRUTH_RATIOS", "distinct_2", "log_truth_ratio"),
            *("normalised_probability", "probability", "repetition_rate", "rouge_scores"),
            *("text_statistics", "truth_score"),
        ),
        "summary": (
            *("COLUMNS", "FORGOTTEN", "Summary", "UTILITY_SCORES", "UTILITY_SETS"),
            *("log_truth_ratios", "summarise", "truth_ratio_values"),
        ),
        "official_reader": ("LogError", "read_official_log", "read_reference"),
    },
)
